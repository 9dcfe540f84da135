"""How a step is chosen from a gradient, as optax transformations: so every optax optimizer is a rule too."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jaxgd.errors import ShapeError, describe, require_float, require_positive


def update(v: PyTree[Array], gradient: PyTree[Array], eta: Any) -> PyTree[Array]:
    """One step of gradient descent, for any pytree of variables.

    v → v − η∇C.

    Shapes: `v` and `gradient` alike; the result has v's shapes and dtypes.
    Range: η > 0; traced, it is not checked and may be swept with vmap.
    Raises: ShapeError if the trees or their shapes differ; DtypeError unless all are real floating point; RangeError or
    DtypeError for an η that is no step size.
    Source: Nielsen, chapter 1, equation (15).

    >>> float(update(jnp.array(1.0), jnp.array(2.0), 0.25))
    0.5
    """
    require_positive("update", "eta", eta)
    ours, theirs = str(jax.tree.structure(v)), str(jax.tree.structure(gradient))
    if ours != theirs:
        raise ShapeError(f"update: the gradient must be a tree like v, {ours}, got {theirs}.")
    return jax.tree_util.tree_map_with_path(lambda path, x, g: _step(path, x, g, eta), v, gradient)


def _step(path: Any, x: Array, g: Array, eta: Any) -> Array:
    if jnp.shape(x) != jnp.shape(g):
        raise ShapeError(
            f"update: leaf {jax.tree_util.keystr(path)!r} is {describe(x)} but its gradient is {describe(g)}."
        )
    name = jax.tree_util.keystr(path) or "v"
    require_float("update", f"variable {name}", x)
    require_float("update", f"the gradient of {name}", g)
    return jnp.asarray(x - eta * g, jnp.result_type(x))


def gradient_descent(eta: Any) -> optax.GradientTransformation:
    """The book's rule, as an optax transformation: Δv = −η∇C and nothing else.

    Range: η > 0; traced, it is not checked, changing it does not recompile and vmap sweeps it.
    Raises: RangeError or DtypeError for an η that is no step size.
    Source: Nielsen, chapter 1, equation (10).

    >>> rule = gradient_descent(0.25)
    >>> step, _ = rule.update(jnp.array(2.0), rule.init(jnp.array(1.0)))
    >>> float(step)
    -0.5
    """
    require_positive("gradient_descent", "eta", eta)
    return optax.stateless(lambda gradient, _: jax.tree.map(lambda g: -eta * g, gradient))

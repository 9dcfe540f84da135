"""Derivatives of a minimum with respect to the cost's arguments, by the implicit function theorem."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, PyTree

from jaxgd.curvature import hessian_vector_product
from jaxgd.descent.confirm import is_near

# The solution of the linear equation takes more products than the check, so the check needs no tight limit.
_EVALUATIONS = 10**6


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_minimum(
    cost: Callable[..., Any],
    args: tuple[Any, ...],
    v: PyTree[Array],
    value: Array,
    gradient: PyTree[Array],
    rtol: Any,
    free: PyTree[Array] | None = None,
) -> tuple[PyTree[Array], Array, PyTree[Array]]:
    """Return the minimum v of cost(v, *args), with its cost and gradient, as functions of args.

    ∇C(v, args) = 0 gives dv = −H⁻¹ (∂∇C/∂args) dargs, with H the Hessian, and dC = (∂C/∂args) dargs. The minimum does
    not depend on the path, so the derivatives with respect to v₀ and the rule are 0. The derivative of the gradient is
    0 too. The derivatives of v and of the cost are NaN unless the distance to a minimum is small, by the check of
    `is_near` with rtol and the mask `free`.

    Source: Krantz and Parks, The Implicit Function Theorem (2002); Blondel et al., NeurIPS 2022.
    """
    return v, value, gradient


@at_minimum.defjvp
def _at_minimum_jvp(cost: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    args, v, value, gradient, rtol, free = primals
    # Without a minimum, the theorem does not apply.
    factor = jnp.where(_near(cost, *lax.stop_gradient((args, v, value, rtol)), free), 1, jnp.nan)

    def marked(dx: Any) -> Any:
        dtype = jnp.result_type(dx)  # A tangent may be a Python number.
        return dx if dtype == jax.dtypes.float0 else dx * factor.astype(dtype)

    # Conjugate gradients return 0 for NaN. Mark the tangents before and after them, because reverse mode runs backward.
    moved = jax.tree.map(marked, tangents[0])
    # Apply at_minimum again: v depends on args in the second derivative too.
    v, value, gradient = at_minimum(cost, args, v, value, gradient, rtol, free)
    _, force = jax.jvp(lambda args: jax.grad(lambda v: cost(v, *args))(v), (args,), (moved,))
    _, dvalue = jax.jvp(lambda args: cost(v, *args), (args,), (moved,))
    dv = _solve(partial(hessian_vector_product, cost, v, args=args), jax.tree.map(jnp.negative, force))
    tangent = jax.tree.map(marked, dv), jnp.asarray(dvalue, value.dtype), jax.tree.map(jnp.zeros_like, gradient)
    return (v, value, gradient), tangent


def _near(cost: Callable[..., Any], args: Any, v: PyTree[Array], value: Array, rtol: Any, free: Any) -> Array:
    def at(v: PyTree[Array]) -> Any:
        return cost(v, *args)

    return is_near(at, v, value, jax.grad(at)(v), rtol, jnp.array(_EVALUATIONS), None, free)[1]


def _solve(product: Callable[[Any], Any], b: PyTree[Array]) -> PyTree[Array]:
    """Return H⁻¹b by conjugate gradients. It can be differentiated in forward and reverse mode."""
    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(b))  # type: ignore[no-untyped-call]

    def solve(product: Callable[[Any], Any], b: Any) -> Any:
        return cg(product, b, tol=10 * eps)[0]  # type: ignore[no-untyped-call]

    return lax.custom_linear_solve(product, b, solve, symmetric=True)

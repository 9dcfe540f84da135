"""Derivatives of a minimum with respect to the cost's arguments, by the implicit function theorem."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array

from jaxgd.curvature import hessian_vector_product
from jaxgd.descent.confirm import is_near
from jaxgd.typed import Real, V, finfo, grad, jvp, tree_leaves, tree_map

# `is_near` derives its limit on Hessian-vector products from this number of evaluations. The limit is high, because the
# derivative needs more products than `is_near`.
_EVALUATIONS = 10**6


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_minimum(
    cost: Callable[..., Array],
    args: tuple[Any, ...],
    v: V,
    value: Array,
    gradient: V,
    rtol: Real,
    free: V | None = None,
) -> tuple[V, Array, V]:
    """Return the minimum v of cost(v, *args), with its cost and gradient, as functions of args.

    ∇C(v, args) = 0 gives dv = −H⁻¹ (∂∇C/∂args) dargs, with H the Hessian, and dC = (∂C/∂args) dargs. The minimum does
    not depend on the path, so the derivatives with respect to v₀ and the rule are 0. The derivative of the gradient is
    0 too. The derivatives of v and of the cost are NaN if `is_near` finds no minimum near v, with rtol and the mask
    `free`.

    Source: Krantz and Parks, The Implicit Function Theorem (2002); Blondel et al., NeurIPS 2022.
    """
    return v, value, gradient


@at_minimum.defjvp
def _at_minimum_jvp(
    cost: Callable[..., Array],
    primals: tuple[tuple[Any, ...], V, Array, V, Real, V | None],
    tangents: tuple[tuple[Any, ...], V, Array, V, Real, V | None],
) -> tuple[tuple[V, Array, V], tuple[V, Array, V]]:
    args, v, value, gradient, rtol, free = primals
    # The theorem holds only at a minimum.
    factor = jnp.where(_near(cost, *lax.stop_gradient((args, v, value, rtol)), free), 1, jnp.nan)

    def valid(dx: Array) -> Array:
        dtype = jnp.result_type(dx)  # A tangent may be a Python number.
        return dx if dtype == jax.dtypes.float0 else dx * factor.astype(dtype)

    # Conjugate gradients return 0 if the right-hand side is NaN. So multiply by `factor` before `_solve` for reverse
    # mode, and after `_solve` for forward mode.
    moved = tree_map(valid, tangents[0])
    # Apply at_minimum again, because the second derivative also needs v as a function of args.
    v, value, gradient = at_minimum(cost, args, v, value, gradient, rtol, free)

    def gradient_at(args: tuple[Any, ...]) -> V:
        return grad(_with(cost, args))(v)

    def cost_at(args: tuple[Any, ...]) -> Array:
        return cost(v, *args)

    def product(u: V) -> V:
        return hessian_vector_product(cost, v, u, args)

    _, force = jvp(gradient_at, (args,), (moved,))
    _, dvalue = jvp(cost_at, (args,), (moved,))
    dv = _solve(product, tree_map(jnp.negative, force))
    tangent = tree_map(valid, dv), jnp.asarray(dvalue, value.dtype), tree_map(jnp.zeros_like, gradient)
    return (v, value, gradient), tangent


def _with(cost: Callable[..., Array], args: tuple[Any, ...]) -> Callable[[V], Array]:
    return lambda v: cost(v, *args)


def _near(cost: Callable[..., Array], args: tuple[Any, ...], v: V, value: Array, rtol: Real, free: V | None) -> Array:
    at = _with(cost, args)
    return is_near(at, v, value, grad(at)(v), rtol, jnp.array(_EVALUATIONS), None, free)[1]


def _solve(product: Callable[[V], V], b: V) -> V:
    """Return H⁻¹b by conjugate gradients. It can be differentiated in forward and reverse mode."""
    eps = max(float(finfo(x.dtype).eps) for x in tree_leaves(b))

    def solve(product: Callable[[V], V], b: V) -> Any:
        return cg(product, b, tol=10 * eps)[0]  # type: ignore[no-untyped-call]

    solution: V = lax.custom_linear_solve(product, b, solve, symmetric=True)
    return solution

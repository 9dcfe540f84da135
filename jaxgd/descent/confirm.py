"""The check that v is near a minimum. It does not depend on the start of the descent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxgd.pytree import axpy, dot, norm, size
from jaxgd.rules.bounds import masked

# Conjugate gradients stop when the residual is at most this part of ‖∇C‖.
_RESIDUAL = 1e-3
# The least number of Hessian-vector products that the check may make.
_PRODUCTS = 20


class _Solving(NamedTuple):
    """The state of conjugate gradients on H/unit. They start with ‖r‖ = 1, so the scale of C does not matter.

    ‖d‖² and r₀ᵀd follow from recurrences, so the solution d itself is not needed.
    """

    r: PyTree[Array]
    p: PyTree[Array]
    rr: Array  # ‖r‖²
    pp: Array  # ‖p‖²
    dp: Array  # dᵀp
    dd: Array  # ‖d‖²
    energy: Array  # r₀ᵀd
    unit: Array  # r₀ᵀHr₀
    least: Array  # the least pᵀHp/pᵀp so far, in units of `unit`
    products: Array
    bent: Array  # True after a direction with pᵀHp ≤ 0 within rounding


class Prediction(NamedTuple):
    """The way to the minimum that Newton's equation H d = ∇C predicts.

    Attributes:
        distance: ‖d‖, plus an estimate of the part that the residual adds.
        decrease: The decrease of C, ½ ∇Cᵀd, plus such an estimate.
        definite: True if H is positive along all directions tried. With ∇C = 0, these must also cover the whole space.
        indefinite: True if H has negative curvature along a direction, or no positive curvature along the first.
    """

    distance: Float[Array, ""]
    decrease: Float[Array, ""]
    definite: Bool[Array, ""]
    indefinite: Bool[Array, ""]


def tolerances(rtol: Any, v: PyTree[Array], cost: Array) -> tuple[Array, Array]:
    """Return the largest distance and the largest decrease that count as near, for a gradient tolerance rtol.

    They are rtol^⅔ · max(1, ‖v‖) and max(rtol^⅔, rtol · |C|). For the default rtol of eps^¾, rtol^⅔ is √eps: rounding
    in C hides smaller distances. The 1 is absolute, because a minimum with v = 0 and C = 0 has no scale.
    """
    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(v))  # type: ignore[no-untyped-call]
    r = jnp.maximum(jnp.asarray(rtol, cost.dtype), eps)
    root = r ** (2 / 3)
    return root * jnp.maximum(1, norm(v)), jnp.maximum(root, r * jnp.abs(cost))


def is_near(
    cost: Callable[[PyTree[Array]], Any],
    v: PyTree[Array],
    value: Array,
    gradient: PyTree[Array],
    rtol: Any,
    spent: Any,
    free: PyTree[Array] | None = None,
) -> tuple[Array, Array]:
    """Return two flags: v is near a minimum with a positive Hessian, and v is near any minimum.

    `value` is C(v), rtol the relative tolerance of the gradient, and `spent` the number of evaluations so far. The
    two flags differ only for ∇C = 0: a Hessian without negative curvature may be 0 along some directions. The mask
    `free` restricts the check to the variables that can move. The gradient is 0 for the others.
    """
    limits, length = tolerances(rtol, v, value), norm(gradient).astype(value.dtype)
    way = predict(cost, v, gradient, length, limits, spent, free)
    near = way.definite & ((way.distance <= limits[0]) | (way.decrease <= limits[1]))
    zero = length == 0
    return jnp.where(zero, way.definite, near), jnp.where(zero, ~way.indefinite, near)


def predict(
    cost: Callable[[PyTree[Array]], Any],
    v: PyTree[Array],
    gradient: PyTree[Array],
    length: Array,
    limits: Any,
    spent: Int[Array, ""],
    free: PyTree[Array] | None = None,
) -> Prediction:
    """Solve H d = ∇C by conjugate gradients, with `length` = ‖∇C‖.

    ‖d‖ and ∇Cᵀd grow with each product. The search therefore ends as soon as both are above their limits. It makes at
    most max(20, a quarter of the evaluations spent) products. With ∇C = 0, the right-hand side is a fixed vector, and
    only the signs of the curvatures count.
    """
    kind = length.dtype
    most = jnp.minimum(2 * size(v), jnp.maximum(_PRODUCTS, spent // 4))
    eps: Any = jnp.finfo(kind).eps  # type: ignore[no-untyped-call]
    product = _product(cost, v)

    def first(g: Array) -> Array:
        # The vector has no symmetry, so it is orthogonal to no eigenvector of a simple Hessian.
        fixed = jnp.cos(jnp.arange(g.size, dtype=kind) ** 2 + 0.3).reshape(g.shape)
        return jnp.where(length > 0, g / jnp.where(length > 0, length, 1), fixed).astype(g.dtype)

    def predicted(s: _Solving, rest: Any) -> tuple[Array, Array]:
        scale = length / s.unit
        return (jnp.sqrt(s.dd) + jnp.sqrt(rest) / s.least) * scale, (s.energy + rest / s.least) * scale * length / 2

    def more(s: _Solving) -> Array:
        distance, decrease = predicted(s, 0)
        far = (distance > limits[0]) & (decrease > limits[1])
        going: Array = (s.rr > _RESIDUAL**2) & (s.products < most) & ~s.bent & ~far
        return going

    def solve(s: _Solving) -> _Solving:
        hp = masked(free, product(s.p))
        curvature = dot(s.p, hp).astype(kind)
        unit = jnp.where(s.products > 0, s.unit, curvature)
        quotient = curvature / unit / s.pp
        bent = ~((quotient > 4 * eps) & (unit > 0))
        alpha = jnp.where(bent, 0, s.rr / (quotient * s.pp))
        r = axpy(-alpha / unit, hp, s.r)
        rr = dot(r, r).astype(kind)
        beta = rr / s.rr
        dp = s.dp + alpha * s.pp
        return _Solving(
            r=r,
            p=axpy(beta, s.p, r),
            rr=rr,
            pp=rr + beta**2 * s.pp,
            dp=beta * dp,
            dd=s.dd + alpha * (s.dp + dp),
            energy=s.energy + alpha * s.rr,
            unit=jnp.where(bent & (s.products == 0), 1, unit),
            least=jnp.minimum(s.least, quotient),
            products=s.products + 1,
            bent=bent,
        )

    b = masked(free, jax.tree.map(first, gradient))
    bb, zero = dot(b, b).astype(kind), jnp.zeros((), kind)
    begin = _Solving(b, b, bb, bb, zero, zero, zero, zero + 1, zero + jnp.inf, jnp.array(0), jnp.array(False))
    s = lax.while_loop(more, solve, begin)
    # The residual r adds at most ‖r‖/λ to the distance, with λ the least curvature. Use the least one seen as λ.
    distance, decrease = predicted(s, s.rr)
    solved = (length > 0) | (s.rr <= _RESIDUAL**2)
    return Prediction(distance, decrease, solved & ~s.bent, s.bent & ((s.products == 1) | (s.least < -4 * eps)))


def _product(cost: Callable[[PyTree[Array]], Any], v: PyTree[Array]) -> Callable[[PyTree[Array]], PyTree[Array]]:
    """Return the product with the Hessian: exact, or by central differences of ∇C if JAX cannot derive it."""
    gradient = jax.grad(cost)

    def exact(p: PyTree[Array]) -> PyTree[Array]:
        # H is symmetric. Reverse mode also takes a cost with jax.custom_vjp.
        product: PyTree[Array] = jax.vjp(gradient, v)[1](p)[0]
        return product

    def quotient(p: PyTree[Array]) -> PyTree[Array]:
        kind = norm(v).dtype
        h = jnp.finfo(kind).eps ** (1 / 3) * jnp.maximum(1, norm(v)) / norm(p)  # type: ignore[no-untyped-call]
        above, below = gradient(axpy(h, p, v)), gradient(axpy(-h, p, v))
        return jax.tree.map(lambda x, y: ((x - y) / (2 * h)).astype(x.dtype), above, below)

    try:
        jax.eval_shape(exact, v)
    except Exception:  # A callback, for instance, has no second derivative. JAX raises several types.
        return quotient
    return exact

"""The check that v is near a minimum.

It predicts the distance to the minimum and the decrease of C from ∇C and the Hessian H at v.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgd.mesh import control
from jaxgd.pytree import axpy, dot, norm, select, size
from jaxgd.rules.bounds import masked
from jaxgd.typed import Generic, Real, Tree, V, eval_shape, finfo, grad, map_rows, tree_leaves, tree_map, vjp

# Conjugate gradients stop when ‖r‖ is at most this. The first r is ∇C/‖∇C‖ or the fixed vector.
_RESIDUAL = 1e-3
# Largest number of Hessian-vector products. The first search makes at most max(_PRODUCTS, evaluations / 4), or _ALL if
# ∇C = 0. The second search makes at most _PRODUCTS. Neither search makes more than 2 per variable.
_PRODUCTS, _ALL = 20, 200


class _Solving(NamedTuple, Generic[V]):
    """The state of conjugate gradients on H/unit.

    The first residual r₀ is ∇C/‖∇C‖ or a fixed vector, so C may have any scale. ‖d‖² and r₀ᵀd follow from
    recurrences, so the solution d itself is not needed.
    """

    r: V
    p: V
    rr: Array  # ‖r‖²
    pp: Array  # ‖p‖²
    dp: Array  # dᵀp
    dd: Array  # ‖d‖²
    energy: Array  # r₀ᵀd
    unit: Array  # r₀ᵀHr₀
    least: Array  # the least pᵀHp/pᵀp so far, in units of `unit`
    products: Array
    bent: Array  # True after a direction with pᵀHp ≤ 0 within rounding
    span: Array  # the largest ‖Hp‖/‖p‖ so far: a lower bound of ‖H‖
    negative: Array  # True after a direction with pᵀHp/pᵀp < −eps^⅔ · span


class Prediction(NamedTuple):
    """The distance to the minimum and the decrease of C that Newton's equation H d = ∇C predicts.

    Attributes:
        distance: ‖d‖, plus an estimate of the error from the residual.
        decrease: The decrease of C, ½ ∇Cᵀd, plus an estimate of its error.
        definite: True if H has positive curvature along all directions of the first search. If ∇C = 0, this search
            must also have converged.
        indefinite: True if a direction of the first search has negative curvature, or if its first direction has zero
            curvature.
        saddle: True if H has negative curvature beyond rounding along a direction of the second search.
    """

    distance: Float[Array, ""]
    decrease: Float[Array, ""]
    definite: Bool[Array, ""]
    indefinite: Bool[Array, ""]
    saddle: Bool[Array, ""]


def tolerances(rtol: Real, v: Tree, cost: Array, scales: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """Return the largest distance and the largest decrease that count as near, for a gradient tolerance rtol.

    `scales` is (‖v₀‖, C₀) with C₀ = max(|C(v₀)|, |C(v₁)|). The largest distance is rtol^⅔ · max(‖v‖, min(1, ‖v₀‖)). The
    largest decrease is max(rtol^⅔ · min(1, C₀), rtol · |C|). The start sets a scale because a minimum with v = 0 and
    C = 0 has none of its own. Without `scales`, the largest distance is rtol^⅔ · max(1, ‖v‖), and no decrease counts.

    An rtol below eps counts as eps. For the default rtol of eps^¾, rtol^⅔ is √eps: rounding in C hides smaller
    distances.
    """
    eps = max(float(finfo(x.dtype).eps) for x in tree_leaves(v))
    r = jnp.maximum(jnp.asarray(rtol, cost.dtype), eps)
    root = r ** (2 / 3)
    if scales is None:
        return root * jnp.maximum(1, norm(v)), jnp.full_like(root, -jnp.inf)
    size, scale = (jnp.minimum(1, x) for x in scales)
    return root * jnp.maximum(norm(v), size), jnp.maximum(root * scale, r * jnp.abs(cost))


def is_near(
    cost: Callable[[V], Array],
    v: V,
    value: Array,
    gradient: V,
    rtol: Real,
    spent: Array,
    scales: tuple[Array, Array] | None,
    free: V | None = None,
) -> tuple[Array, Array]:
    """Return two flags: v is near a minimum with a positive Hessian, and v is near any minimum.

    `value` is C(v), `rtol` is the relative tolerance of the gradient, and `spent` is the number of evaluations so far.
    `scales` is as in `tolerances`. If `scales` is None, only the distance counts, because derivatives need v close to
    the minimum. The mask `free` selects the variables that can move. `gradient` must be 0 for all other variables.

    The flags differ only if ∇C = 0. In this case, the second flag allows zero curvature in any direction of the search
    except the first, and a search that has not converged.
    """
    limits, length = tolerances(rtol, v, value, scales), norm(gradient).astype(value.dtype)
    way = predict(cost, v, gradient, length, limits, spent, free)
    near = way.definite & ~way.saddle & ((way.distance <= limits[0]) | (way.decrease <= limits[1]))
    zero = length == 0
    return jnp.where(zero, way.definite, near), jnp.where(zero, ~way.indefinite, near)


def predict(
    cost: Callable[[V], Array],
    v: V,
    gradient: V,
    length: Array,
    limits: tuple[Array, Array],
    spent: Int[Array, ""],
    free: V | None = None,
) -> Prediction:
    """Solve H d = ∇C by conjugate gradients, with `length` = ‖∇C‖.

    ‖d‖ and ∇Cᵀd grow with each product of H and a vector, so the search ends as soon as both are above their limits. If
    ∇C = 0, the right-hand side is a fixed vector, and only the signs of the curvatures count.

    If C and the start have the same symmetry, ∇C has no component in some directions. If ∇C ≠ 0, a second search
    therefore begins with the fixed vector, and looks for negative curvature.
    """
    kind = length.dtype
    most = jnp.where(length > 0, jnp.maximum(_PRODUCTS, spent // 4), _ALL)
    most = jnp.minimum(2 * size(v), jnp.array([most, jnp.where(length > 0, _PRODUCTS, 0)]))
    eps = finfo(kind).eps
    product = _product(cost, v)

    def predicted(s: _Solving[V], rest: Real) -> tuple[Array, Array]:
        scale = length / s.unit
        return (jnp.sqrt(s.dd) + jnp.sqrt(rest) / s.least) * scale, (s.energy + rest / s.least) * scale * length / 2

    def is_far(s: _Solving[V]) -> Array:
        distance, decrease = predicted(s, 0)
        return (distance > limits[0]) & (decrease > limits[1])

    def solve(s: _Solving[V]) -> _Solving[V]:
        hp = masked(free, product(s.p))
        curvature = dot(s.p, hp).astype(kind)
        unit = jnp.where(s.products > 0, s.unit, curvature)
        quotient = curvature / unit / s.pp
        bent = ~((quotient > 4 * eps) & (unit > 0))
        span = jnp.maximum(s.span, norm(hp).astype(kind) / jnp.sqrt(s.pp))
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
            span=span,
            negative=s.negative | (curvature < -(eps ** (2 / 3)) * span * s.pp),
        )

    def search(x: tuple[V, Array, Array]) -> _Solving[V]:
        b, most, by_gradient = x
        bb, zero, no = dot(b, b).astype(kind), jnp.zeros((), kind), jnp.array(False)
        begin = _Solving(b, b, bb, bb, zero, zero, zero, zero + 1, zero + jnp.inf, jnp.array(0), no, zero, no)

        def more(s: _Solving[V]) -> Array:
            return ~((s.rr <= _RESIDUAL**2) | s.bent | (by_gradient & is_far(s)) | (s.products >= most))

        end: _Solving[V] = control.while_loop(more, solve, begin)
        nothing: Any = ()
        return end._replace(r=nothing, p=nothing)

    fixed = masked(free, _fixed(v, kind))
    unit = tree_map(lambda g: g / jnp.where(length > 0, length, 1).astype(g.dtype), gradient)
    b = masked(free, select(length > 0, unit, fixed))
    # Run the searches one by one, because a callback in C may not support batches.
    starts = tree_map(lambda x, y: jnp.stack([x, y]), b, fixed)
    both = map_rows(search, (starts, most, jnp.array([True, False])))
    s, second = tree_map(lambda x: x[0], both), tree_map(lambda x: x[1], both)
    # The residual r adds at most ‖r‖/λ to the distance, where λ is the least eigenvalue of H. The least curvature in
    # the search is an estimate of λ.
    distance, decrease = predicted(s, s.rr)
    solved = (length > 0) | (s.rr <= _RESIDUAL**2)
    indefinite = s.bent & ((s.products == 1) | (s.least < -4 * eps))
    return Prediction(distance, decrease, solved & ~s.bent, indefinite, second.negative)


def _fixed(v: V, kind: np.dtype[Any]) -> V:
    """Return a vector without symmetry. It is not orthogonal to any eigenvector of a diagonal Hessian."""
    leaves, outline = jax.tree.flatten(v)
    ends = list(itertools.accumulate((x.size for x in leaves), initial=0))
    numbers = [jnp.arange(a, b, dtype=kind) for a, b in itertools.pairwise(ends)]
    entries = [jnp.cos(i**2 + 0.3).reshape(x.shape).astype(x.dtype) for i, x in zip(numbers, leaves, strict=True)]
    fixed: V = jax.tree.unflatten(outline, entries)
    return fixed


def _product(cost: Callable[[V], Array], v: V) -> Callable[[V], V]:
    """Return the product with the Hessian: exact, or by central differences of ∇C if JAX cannot differentiate ∇C."""
    gradient = grad(cost)

    def exact(p: V) -> V:
        # H is symmetric, so reverse mode gives Hp too. Unlike forward mode, it takes a cost with jax.custom_vjp.
        return vjp(gradient, v)[1](p)[0]

    def quotient(p: V) -> V:
        kind = norm(v).dtype
        h = finfo(kind).eps ** (1 / 3) * jnp.maximum(1, norm(v)) / norm(p)
        above, below = gradient(axpy(h, p, v)), gradient(axpy(-h, p, v))
        return tree_map(lambda x, y: ((x - y) / (2 * h)).astype(x.dtype), above, below)

    try:
        eval_shape(exact, v)
    except Exception:  # A callback, for instance, has no second derivative. JAX raises errors of several types.
        return quotient
    return exact

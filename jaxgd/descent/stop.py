"""The tests that stop a descent, made at the start and after each update."""

import dataclasses
import functools
import math
import operator
import sys
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Int

from jaxgd.descent.state import DescentState
from jaxgd.errors import DtypeError, RangeError, describe, is_traced, require_bool, require_real, shown
from jaxgd.outcome import Reason
from jaxgd.pytree import all_finite, norm
from jaxgd.typed import Real, RealField, finfo, tree_leaves

# Progress is first checked after 16 updates, then after max(16, k/8) more, with k the number of updates so far.
FIRST_LOOK = 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stop:
    """The tests that stop a descent before `max_steps`, made at the start and after every update.

    The test for a stall has its own schedule (see `stalled`). A test is made only if one of its fields is set. If only
    the atol or the rtol of a test is set, the other one is 0. The numbers may be traced: new values do not recompile.

    If C(v_k) is evaluated and is infinite or NaN, the descent stops even if no test is set.

    C is not evaluated after each update if no test, record or rule needs it. This requires a gradient tolerance, None
    for `cost`, `diverging` and the decrease tolerances, no record, and a rule of jaxgd that uses only the gradient. C
    is then evaluated only at v₀ and v₁, in the checks for a stall, where a test is met, and at the end. After the other
    updates, ∇C is tested for infinities and NaN. If ‖∇C‖² may overflow or underflow, C is evaluated after every update.

    With bounds, ∇C in these tests is the reduced gradient, and H the Hessian of the variables that can move. The
    reduced gradient is ∇C, but 0 for each variable on a bound where −∇C points out of the box.

    The relative tolerance of the gradient depends on the start: a large ∇C(v₀) makes it loose. A ‖∇C‖ above
    gradient_atol must therefore also pass a check by Newton's equation H d = ∇C. Let r = gradient_rtol and
    C₀ = max(|C(v₀)|, |C(v₁)|). The check requires ‖d‖ ≤ r^⅔ · max(‖v‖, min(1, ‖v₀‖)) or
    ½∇Cᵀd ≤ max(r^⅔ · min(1, C₀), r · |C|). It also requires that H has no curvature ≤ 0 along the directions tried. If
    the check fails, the run continues. The next check comes when ‖∇C‖ − gradient_atol has fallen to a tenth of its
    value.

    The check solves the equation by conjugate gradients. It uses at most 20 Hessian-vector products, or a quarter of
    the evaluations so far if that is more. A second search starts from a fixed vector and uses at most 20 products. It
    looks for negative curvature in directions that a symmetry hides from ∇C. It can miss a saddle with little negative
    curvature. Where JAX has no second derivative of the cost, the check uses differences of ∇C.

    For ∇C = 0, a single search starts from the fixed vector and uses at most 200 products. At v₀, the search must
    converge, and H must have positive curvature along all directions of the search. After one or more updates, the
    first direction must have positive curvature, and no direction may have negative curvature. Otherwise the outcome is
    ZERO_GRADIENT, and `outcome.ok` is False.

    Attributes:
        gradient_atol: Stop when ‖∇C(v_k)‖ ≤ atol + rtol · ‖∇C(v₀)‖.
        gradient_rtol: The rtol in the test of the gradient. The check of the minimum uses it too.
        step_atol: Stop when ‖Δv‖ ≤ atol + rtol · ‖v_k‖.
        step_rtol: The rtol in the test of the step.
        cost: Stop when C(v_k) ≤ cost.
        decrease_atol: Stop when |C(v_k) − C(v_{k−1})| ≤ atol + rtol · |C(v_k)|.
        decrease_rtol: The rtol in the test of the decrease.
        diverging: Stop when C(v_k) > diverging · max(|C(v₀)|, |C(v₁)|). A number above 0, by default 10⁶, or None.
        stalled: True (default) to stop at a stall: C has not fallen since the previous check, and the next update would
            move no variable by more than its rounding, |Δvᵢ| ≤ eps · |vᵢ|. With `wolfe`, the latest update is tested
            instead of the next one. For an optax rule or a rule with a schedule, a step of exactly 0 is no stall. The
            first check comes after 16 updates, each later check after max(16, k/8) more, with k the number of updates
            so far.

    Example:
        >>> Stop(cost=1e-8).cost
        1e-08
    """

    gradient_atol: RealField | None = None
    gradient_rtol: RealField | None = None
    step_atol: RealField | None = None
    step_rtol: RealField | None = None
    cost: RealField | None = None
    decrease_atol: RealField | None = None
    decrease_rtol: RealField | None = None
    diverging: RealField | None = 1e6
    stalled: Any = dataclasses.field(default=True, metadata={"static": True})

    @property
    def needs_gradient_norm(self) -> bool:
        """True if the tests need ‖∇C‖ after every update."""
        return self.gradient_atol is not None or self.gradient_rtol is not None

    @property
    def needs_cost(self) -> bool:
        """True if the tests need C after every update."""
        return self.cost is not None or self.diverging is not None or self.needs_decrease

    @property
    def needs_decrease(self) -> bool:
        """True if the tests need the decrease of C after every update."""
        return self.decrease_atol is not None or self.decrease_rtol is not None

    @property
    def needs_step_norm(self) -> bool:
        """True if the tests need ‖Δv‖ after every update."""
        return self.step_atol is not None or self.step_rtol is not None


def default_stop(dtype: DTypeLike) -> Stop:
    """Return the default tests: of the gradient, for divergence and for a stall.

    ‖∇C‖ must fall to eps^¾ of its first value, 6e-6 in float32 and 2e-12 in float64. At √eps of the first value, a
    well-conditioned C no longer changes. Rounding makes a fall to eps unreachable. eps^¾ lies between √eps and eps.
    """
    return Stop(gradient_rtol=float(finfo(dtype).eps) ** 0.75)


def resolved_stop(who: str, stop: object, dtype: DTypeLike) -> Stop | None:
    """Return `stop`, or the default tests for this dtype if `stop` is "auto". Raise unless its type is valid."""
    if isinstance(stop, str) and stop == "auto":
        stop = default_stop(dtype)
    if stop is not None and not isinstance(stop, Stop):
        raise DtypeError(f'{who}: stop must be a jaxgd.Stop, None or "auto", got {describe(stop)}.')
    return stop


def require_stop(who: str, stop: Stop, dtype: DTypeLike) -> None:
    """Raise unless all untraced fields are valid. Warn if an rtol is below the rounding of the dtype."""
    eps = float(finfo(dtype).eps)
    require_bool(who, "stop.stalled", stop.stalled)
    for field in dataclasses.fields(stop):
        x = getattr(stop, field.name)
        if x is None or field.name == "stalled":
            continue
        require_real(who, f"stop.{field.name}", x)
        if is_traced(x):
            continue
        x = float(x)
        # Every descent would stop at its start with an infinite tolerance or an infinite `cost`.
        least, most, words = {
            "cost": (-math.inf, sys.float_info.max, "a finite number"),
            "diverging": (math.ulp(0.0), math.inf, "above 0"),
        }.get(field.name, (0.0, sys.float_info.max, "finite and at least 0"))
        if not least <= x <= most:
            raise RangeError(f"{who}: stop.{field.name} must be {words}, got {shown(x)}.")
        if field.name.endswith("rtol") and 0 < x < eps:
            warnings.warn(
                f"{who}: stop.{field.name}={x:g} is below the rounding of {jnp.dtype(dtype)}, {eps:.1g}: the "
                f"tolerance may never be reached. Use a wider dtype, or at least {eps:.1g}.",
                stacklevel=4,
            )


def _tolerance(atol: Real | None, rtol: Real | None, scale: Array | int) -> ArrayLike:
    return (0 if atol is None else atol) + (0 if rtol is None else rtol * scale)


class Limits(NamedTuple):
    """The limits of the tests on C and ‖∇C‖.

    Attributes:
        lowest: C at or below this meets the test of the cost.
        highest: C above this meets the test for divergence.
        gradient: ‖∇C‖ at or below this meets the test of the gradient.
        plain: False if the squares in ‖∇C‖² may overflow or underflow. Then only the outer loop tests ‖∇C‖ reliably.
    """

    lowest: Array
    highest: Array
    gradient: Array
    plain: Array


def limits_of(stop: Stop | None, first_norm: Array, scale: Array) -> Limits:
    """Return the limits for the `first_norm` and the `scale` of a state."""
    dtype = scale.dtype
    known = finfo(dtype)
    lowest, highest = jnp.full((), -jnp.inf, dtype), jnp.full((), known.max, dtype)
    gradient, plain = jnp.zeros((), dtype), jnp.array(True)
    if stop is not None:
        if stop.cost is not None:
            lowest = jnp.asarray(stop.cost, dtype)
        if stop.diverging is not None:
            bound = stop.diverging * scale
            highest = jnp.where((bound > 0) & (bound < highest), bound, highest).astype(dtype)
        if stop.needs_gradient_norm:
            gradient = jnp.asarray(_tolerance(stop.gradient_atol, stop.gradient_rtol, first_norm), dtype)
            # The factor 10⁶ leaves room for a ‖∇C‖ below the tolerance or above ‖∇C(v₀)‖.
            plain = (gradient > known.tiny**0.5 * 1e6) & (first_norm < known.max**0.5 * 1e-6)
    return Limits(lowest, highest, gradient, plain)


def _tests(
    stop: Stop | None, limits: Limits, s: DescentState[Any], exact: Array | None = None, cost_known: bool = True
) -> list[tuple[Array, Reason]]:
    """Return a pair for each test: True if the test is met, and the reason to stop.

    The comparisons are written so that NaN meets every test without an extra check. If `limits.plain` is False, the
    gradient test is reliable only with `exact`: ‖∇C‖ computed with scaling.
    """
    tests = []
    if cost_known:
        tests += [(~(s.cost <= limits.highest), Reason.DIVERGING), (~(s.cost > limits.lowest), Reason.COST)]
    if stop is None:
        return tests
    if stop.needs_gradient_norm:
        length = _plain_norm(s)
        met = ~(length > limits.gradient)
        if not cost_known:
            met |= ~(length <= finfo(length.dtype).max)
        if exact is not None:
            met = jnp.where(limits.plain, met, ~(exact > limits.gradient))
        tests.append((met, Reason.GRADIENT))
    if stop.needs_step_norm:
        v_norm = norm(s.v) if stop.step_rtol is not None else 0
        tests.append((~(s.step_norm > _tolerance(stop.step_atol, stop.step_rtol, v_norm)), Reason.STEP))
    if stop.needs_decrease:
        allowed = _tolerance(stop.decrease_atol, stop.decrease_rtol, jnp.abs(s.cost))
        tests.append((~(jnp.abs(s.cost - s.cost_before) > allowed), Reason.DECREASE))
    return tests


def _plain_norm(s: DescentState[Any]) -> Array:
    """Return ‖∇C‖, computed without scaling: infinite if a square overflows, and too small if squares underflow.

    `pytree.norm` reads ∇C twice, which would slow down the inner loop. `Limits.plain` is True where this norm suffices.
    """
    squares = [jnp.sum(jnp.square(g.astype(s.cost.dtype))) for g in tree_leaves(s.gradient)]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def overflows(stop: Stop | None, s: DescentState[Any]) -> Array:
    """Return True if the gradient is tested and ‖∇C‖² overflows. The outer loop must then compute ‖∇C‖ with scaling."""
    return jnp.array(False) if stop is None or not stop.needs_gradient_norm else jnp.isinf(_plain_norm(s))


def may_go_on(stop: Stop | None, limits: Limits, s: DescentState[Any], cost_known: bool) -> Array:
    """Return True if no test is met. Tests of C are skipped if C is unknown."""
    met = [test for test, _ in _tests(stop, limits, s, cost_known=cost_known)]
    return ~functools.reduce(operator.or_, met)


def reason_to_stop(stop: Stop | None, limits: Limits, s: DescentState[Any]) -> Int[Array, ""]:
    """Return the Reason of the first test that is met, or RUNNING if no test is met.

    If a test is met and C is infinite or NaN, return NOT_FINITE. If the gradient is tested, an infinity or NaN in ∇C
    has the same effect. The loop checks for a stall.
    """
    needs_gradient = stop is not None and stop.needs_gradient_norm
    tests = _tests(stop, limits, s, norm(s.gradient) if needs_gradient else None)
    finite = jnp.isfinite(s.cost)
    if needs_gradient:
        finite &= all_finite(s.gradient)
    code = jnp.array(int(Reason.RUNNING))
    for met, reason in reversed(tests):
        code = jnp.where(met, int(reason), code)
    return jnp.where(finite | (code == int(Reason.RUNNING)), code, int(Reason.NOT_FINITE))

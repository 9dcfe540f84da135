"""When a descent stops: tests on what each update leaves behind."""

import dataclasses
import functools
import operator
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxgd.errors import DtypeError, RangeError, describe, is_traced
from jaxgd.outcome import Reason
from jaxgd.pytree import all_finite, norm

# Whether a descent makes any progress is looked at after so many updates, then every eighth part more.
FIRST_LOOK = 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stop:
    """What ends a descent before its budget of steps: the tests that are named, each after every update.

    - `gradient_atol`, `gradient_rtol`: ‖∇C(v_k)‖ ≤ atol + rtol · ‖∇C(v₀)‖
    - `step_atol`, `step_rtol`: ‖Δv‖ ≤ atol + rtol · ‖v_k‖
    - `cost`: C(v_k) ≤ cost
    - `decrease_atol`, `decrease_rtol`: |C(v_k) − C(v_{k−1})| ≤ atol + rtol · |C(v_k)|
    - `diverging`: C(v_k) > diverging · max(|C(v₀)|, |C(v₁)|), by default 10⁶; None leaves it out
    - `stalled`, unless it is False: C is not below what it was when last looked at, and the next update would move no
      variable by more than a rounding, |Δvᵢ| ≤ eps · |vᵢ|; looked at after 16 updates, then every 16, then every
      eighth part more

    Of a pair, one may be left out and counts as 0. All numbers may be traced: changing them compiles nothing anew.
    Whatever the tests, a cost that is infinite or NaN ends a descent. Where `gradient_atol` or `gradient_rtol` are all
    that looks at more than v, and nothing is recorded, C is evaluated at the end alone: what is infinite or NaN is seen
    by the gradient.

    >>> Stop(cost=1e-8).cost
    1e-08
    """

    gradient_atol: Any = None
    gradient_rtol: Any = None
    step_atol: Any = None
    step_rtol: Any = None
    cost: Any = None
    decrease_atol: Any = None
    decrease_rtol: Any = None
    diverging: Any = 1e6
    stalled: Any = dataclasses.field(default=True, metadata={"static": True})

    @property
    def needs_gradient_norm(self) -> bool:
        """Whether ‖∇C‖ has to be known after every update."""
        return self.gradient_atol is not None or self.gradient_rtol is not None

    @property
    def needs_cost(self) -> bool:
        """Whether C has to be."""
        return self.cost is not None or self.diverging is not None or self.needs_decrease

    @property
    def needs_decrease(self) -> bool:
        """Whether C before the last update has to be."""
        return self.decrease_atol is not None or self.decrease_rtol is not None

    @property
    def needs_step_norm(self) -> bool:
        """Whether ‖Δv‖ and ‖v‖ have to be."""
        return self.step_atol is not None or self.step_rtol is not None


def default_stop(dtype: Any) -> Stop:
    """The gradient is eps^¾ of what it was at the start: 6e-6 in float32, 2e-12 in float64.

    Between √eps, where a well-conditioned C shows no difference any more, and eps, which rounding keeps it from.
    """
    return Stop(gradient_rtol=float(jnp.finfo(dtype).eps) ** 0.75)  # type: ignore[no-untyped-call]


def require_stop(stop: Stop, dtype: Any) -> None:
    """Raise unless all numbers of the tests can serve; warn of a tolerance that the dtype cannot reach."""
    eps = float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    if not isinstance(stop.stalled, bool):
        raise DtypeError(f"minimize: stop.stalled must be True or False, got {describe(stop.stalled)}.")
    for field in dataclasses.fields(stop):
        x = getattr(stop, field.name)
        if x is None or field.name == "stalled" or is_traced(x):
            continue
        number = isinstance(x, int | float | np.number | np.ndarray | jax.Array) and not isinstance(x, bool)
        if not number or jnp.ndim(x) != 0 or jnp.result_type(x).kind not in "iuf":
            raise DtypeError(f"minimize: stop.{field.name} must be one real number or None, got {describe(x)}.")
        if np.isnan(x) or (field.name != "cost" and not x >= 0) or (field.name == "diverging" and x == 0):
            least = "a number" if field.name == "cost" else "above 0" if field.name == "diverging" else "at least 0"
            raise RangeError(f"minimize: stop.{field.name} must be {least}, got {x}.")
        if field.name.endswith("rtol") and 0 < x < eps:
            warnings.warn(
                f"minimize: stop.{field.name}={x:g} is below the rounding of {jnp.dtype(dtype)}, {eps:.1g}: it may "
                f"never be reached. Use a wider dtype, or at least {eps:.1g}.",
                stacklevel=4,
            )


def _tolerance(atol: Any, rtol: Any, scale: Any) -> Any:
    return (0 if atol is None else atol) + (0 if rtol is None else rtol * scale)


class Limits(NamedTuple):
    """What the tests come down to while many updates are made: C above `lowest`, at most `highest`, and ‖∇C‖.

    Where `plain` is false the square of ‖∇C‖ may leave the dtype's range, and ‖∇C‖ is not known but between updates.
    """

    lowest: Any
    highest: Any
    gradient: Any
    plain: Any


def limits_of(stop: Stop | None, first_norm: Any, scale: Any) -> Limits:
    """The limits for a run with this start."""
    dtype = scale.dtype
    known: Any = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
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
            # With room for how far below the tolerance a gradient may fall, and how far above it may begin.
            plain = (gradient > known.tiny**0.5 * 1e6) & (first_norm < known.max**0.5 * 1e-6)
    return Limits(lowest, highest, gradient, plain)


def _tests(
    stop: Stop | None, limits: Limits, s: Any, exact: Any = None, cost_known: bool = True
) -> list[tuple[Any, Reason]]:
    """Whether each test is met, in the fewest operations. What is NaN meets them all.

    Where `limits` are not plain, `exact` serves as ‖∇C‖; without it nothing that is said of the gradient there counts.
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
            met |= ~(length <= jnp.finfo(length.dtype).max)  # type: ignore[no-untyped-call]
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


def _plain_norm(s: Any) -> Any:
    """‖∇C‖ as anybody would write it: infinite where a square is."""
    squares = [jnp.sum(jnp.square(g.astype(s.cost.dtype))) for g in jax.tree.leaves(s.gradient)]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def overflows(stop: Stop | None, s: Any) -> Any:
    """Whether a square of ∇C does, which may be finite all the same: to be looked at before anything goes on."""
    return jnp.array(False) if stop is None or not stop.needs_gradient_norm else jnp.isinf(_plain_norm(s))


def may_go_on(stop: Stop | None, limits: Limits, s: Any, cost_known: bool) -> Any:
    """Whether no test is met by a state; of C none is made where it is not known."""
    met = [test for test, _ in _tests(stop, limits, s, cost_known=cost_known)]
    return ~functools.reduce(operator.or_, met)


def reason_to_stop(stop: Stop | None, limits: Limits, s: Any) -> Int[Array, ""]:
    """The first test that a state meets, as a Reason; RUNNING if none is. That it is stalled is told elsewhere."""
    needs_gradient = stop is not None and stop.needs_gradient_norm
    tests = _tests(stop, limits, s, norm(s.gradient) if needs_gradient else None)
    finite = jnp.isfinite(s.cost)
    if needs_gradient:
        finite &= all_finite(s.gradient)
    code = jnp.array(int(Reason.RUNNING))
    for met, reason in reversed(tests):
        code = jnp.where(met, int(reason), code)
    return jnp.where(finite | (code == int(Reason.RUNNING)), code, int(Reason.NOT_FINITE))

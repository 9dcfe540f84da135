"""The updates and the tests of `minimize` one at a time, for a loop that the caller writes."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from jaxgd.descent.loop import Carry, judge, step_once
from jaxgd.descent.problem import configured, require_same_rule, require_state
from jaxgd.descent.state import DescentState
from jaxgd.descent.stop import Stop, require_stop, resolved_stop
from jaxgd.descent.update import StaticConfig, begin
from jaxgd.errors import require_args, require_callable, require_rule, require_scalar, require_variables
from jaxgd.mesh.axes import require_checked_axes, require_equal_cost
from jaxgd.outcome import Outcome, Reason
from jaxgd.pytree import wide_dtype
from jaxgd.rules import Rule
from jaxgd.rules.rule import Transformation
from jaxgd.typed import Tree, V, jit, tree_leaves, tree_map

WHO = "Descent"


@dataclasses.dataclass(frozen=True, eq=False)
class Descent:
    """The updates and the tests of `minimize` one at a time, for a loop of your own.

    All methods are pure functions, and each is compiled on first use. They also work under `jit`, `vmap`, `scan` and
    `while_loop`.

    A loop `while not done: step` makes the updates of `minimize(…, record=None)` and ends with the same outcome. The
    numbers agree within rounding, which depends on how XLA compiles the loop. States are interchangeable: `minimize(…,
    state=state)` continues from a state of this loop, and this loop can continue from `solution.state`. A call of a
    compiled method takes about 1 ms on the host. For many small updates, use `minimize`, or put the loop under `jit`.

    `args` are the further arguments of the cost. `step(state, *args)` uses the gradient in `state`, and evaluates C and
    ∇C at the new v with `args`. A rule that uses only gradients may therefore get other args in every step, such as
    mini-batches. A rule that searches needs the same args in every step. With mini-batches, use stop=None, because the
    gradient of one mini-batch may meet a test by chance.

    `step` has forward-mode derivatives only. For reverse mode through the updates, use `minimize` with
    differentiate="unroll".

    Attributes:
        cost: The function to minimize; `cost(v, *args)` returns one real scalar.
        rule: One of jaxgd's rules, such as `gradient_descent(0.1)`, or any optax transformation.
        stop: The stopping tests: a `Stop`, "auto" (default) as in `minimize`, or None. With None, a descent ends only
            if C is infinite or NaN, or a traced hyperparameter of the rule is out of range.

    Example:
        >>> from jaxgd import gradient_descent
        >>> descent = Descent(jnp.square, gradient_descent(0.25))
        >>> state = descent.init(1.0)
        >>> while not descent.done(state):
        ...     state = descent.step(state)
        >>> print(state.step, descent.outcome(state).reason.name)
        18 GRADIENT
    """

    cost: Callable[..., Any]
    rule: Transformation
    stop: Stop | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        """Raise unless cost, rule and stop have valid types."""
        require_callable(WHO, "cost", self.cost, "It takes v and the args.")
        require_rule(WHO, "rule", self.rule)
        resolved_stop(WHO, self.stop, jnp.float32)

    @overload
    def init(self, v0: np.ndarray[Any, np.dtype[Any]] | float, *args: Any) -> DescentState[Array]: ...
    @overload
    def init(self, v0: V, *args: Any) -> DescentState[V]: ...
    def init(self, v0: Any, *args: Any) -> DescentState[Any]:
        """Return the state before the first update, with C and ∇C at v0.

        Args:
            v0: The start: any pytree of real floating-point arrays.
            *args: The further arguments of the cost.

        Returns:
            The state.

        Raises:
            ShapeError: If the cost is not one real scalar, or v0 holds no variable.
            DtypeError: If v0 is not real floating point, or an argument has the wrong type.
            RangeError: If a number in `stop` is out of range.
        """
        require_args(WHO, args)
        require_variables(WHO, "v0", v0)
        v0 = tree_map(lambda x: jnp.asarray(x, jnp.result_type(x)), v0)

        def equal_cost(v: Tree, *args: object) -> object:
            c = self.cost(v, *args)
            require_equal_cost(WHO, c, v)
            return c

        require_checked_axes(WHO, self.cost, v0, *args)
        require_scalar(WHO, equal_cost, v0, *args)
        if (stop := resolved_stop(WHO, self.stop, _dtype(v0))) is not None:
            require_stop(WHO, stop, wide_dtype(v0))
        config, rule, args = configured(self.cost, self.rule, v0, tree_map(jnp.asarray, args), None, None)
        return _init(config, rule, v0, args)

    def step(self, state: DescentState[V], *args: Any) -> DescentState[V]:
        """Return the state after one update. If the descent is done, no update is made.

        Args:
            state: The state before the update.
            *args: The further arguments of the cost.

        Returns:
            The state after the update.

        Raises:
            DtypeError: If `state` is not a state, or an argument has the wrong type.
            ShapeError: If `state` is a batch.
            RangeError: If another rule made the state.
        """
        return _step(*self._prepared(state, args))

    def done(self, state: DescentState[Any], *args: Any) -> Bool[Array, "*batch"]:
        """Return True if the descent is done.

        A stopping test is met, C is infinite or NaN, or a traced number of the rule is out of range. The tests are
        those of `minimize`, without a limit on the updates.

        Args:
            state: The state to test.
            *args: The further arguments of the cost, for the stall check and the check of the minimum.

        Returns:
            A scalar, True or False.
        """
        return self.outcome(state, *args).code != int(Reason.RUNNING)

    def outcome(self, state: DescentState[Any], *args: Any) -> Outcome:
        """Return the reason why the descent is done; RUNNING if it is not done.

        Args:
            state: The state to test.
            *args: The further arguments of the cost, for the stall check and the check of the minimum.

        Returns:
            The outcome.
        """
        config, rule, stop, state, args = self._prepared(state, args)
        carry = _judge(config, rule, stop, state, args)
        length, tolerance = carry.gradient_norm or (None, None)
        return Outcome(carry.code, length, tolerance, config.step_size)

    def _prepared(
        self, state: DescentState[V], args: tuple[Any, ...]
    ) -> tuple[StaticConfig, Rule | None, Stop | None, DescentState[V], tuple[Any, ...]]:
        require_state(WHO, state)
        require_args(WHO, args)
        require_same_rule(WHO, self.rule, state)
        stop = resolved_stop(WHO, self.stop, _dtype(state.v))
        config, rule, args = configured(self.cost, self.rule, state.v, tree_map(jnp.asarray, args), None, None)
        return config, rule, stop, state, args


def _dtype(v: Tree) -> DTypeLike:
    return jnp.result_type(*tree_leaves(v))


@jit(static_argnames="config")
def _init(config: StaticConfig, rule: Rule | None, v0: V, args: tuple[Any, ...]) -> DescentState[V]:
    s = begin(config, rule, v0, args)
    return s._replace(best_cost=s.cost)


@jit(static_argnames="config")
def _step(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, state: DescentState[V], args: tuple[Any, ...]
) -> DescentState[V]:
    return step_once(config, rule, stop, state, args)


@jit(static_argnames="config")
def _judge(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, state: DescentState[V], args: tuple[Any, ...]
) -> Carry[V]:
    return judge(config, rule, stop, state, args)

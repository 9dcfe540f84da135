"""Checks of the arguments of `minimize`, and the static configuration of a run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxgd.descent.record import Record
from jaxgd.descent.state import BatchedArgs, DescentState, args_at
from jaxgd.descent.stop import Stop
from jaxgd.descent.update import StaticConfig
from jaxgd.errors import (
    DtypeError,
    RangeError,
    ShapeError,
    describe,
    dtype_of,
    given,
    is_real,
    is_traced,
    largest_int,
    outline,
    require_args,
    require_arrays,
    require_bool,
    require_callable,
    require_count,
    require_like,
    require_rule,
    require_scalar,
    require_variables,
    shown,
)
from jaxgd.mesh.axes import require_checked_axes, require_equal_cost
from jaxgd.rules import Rule
from jaxgd.rules.bounds import Bounds
from jaxgd.rules.evaluating import NewtonState, SearchState
from jaxgd.rules.lbfgs import WolfeState
from jaxgd.rules.rule import Transformation
from jaxgd.seen import seen
from jaxgd.typed import Field, Tree, V, VField, eval_shape, tree_leaves, tree_map

WHO = "minimize"


@dataclasses.dataclass(frozen=True)
class WithoutAux:
    """A function that returns only C, made from a cost that returns (C, aux).

    Attributes:
        cost: The cost that returns the pair.
    """

    cost: Callable[..., tuple[Array, Any]]

    def __call__(self, *args: object) -> Array:
        """Return C."""
        return self.cost(*args)[0]

    def aux(self, *args: object) -> Any:
        """Return aux."""
        return self.cost(*args)[1]


def require_problem(
    cost: Callable[..., Any],
    v0: VField | None,
    rule: Transformation,
    args: tuple[Any, ...],
    max_steps: object,
    callback: object,
    chunk: object,
    seconds: Any,
    state: DescentState[VField] | None,
    has_aux: bool,
    batches: object,
) -> tuple[VField, tuple[Any, ...]]:
    """Return the start and the args as arrays; the args include the batches. Raise unless the arguments are valid."""
    require_callable(WHO, "cost", cost, "It takes v and the args.")
    require_rule(WHO, "rule", rule)
    require_count(WHO, "max_steps", max_steps, least=0, most=largest_int())
    if chunk is not None:
        require_count(WHO, "chunk", chunk)
    if seconds is not None and not (is_real(seconds) and not is_traced(seconds) and seconds > 0):
        raise RangeError(f"{WHO}: seconds must be a number above 0, got {shown(seconds)}.")
    if callback is not None:
        require_callable(WHO, "callback", callback, "It takes a Solution.")
    start: Any = v0
    if state is not None:
        require_state(WHO, state)
        if v0 is not None:
            require_like(WHO, "v0", v0, "the variables in state", state.v, "Pass v0=None.")
        start = state.v
        require_same_rule(WHO, rule, state)
    require_args(WHO, args)
    require_bool(WHO, "has_aux", has_aux)
    require_variables(WHO, "v0", start)
    # A Python number is weakly typed: in JAX it would take the dtype of the other operand.
    v: VField = tree_map(lambda x: jnp.asarray(x, jnp.result_type(x)), start)
    args = tree_map(jnp.asarray, args)
    if batches is not None:
        require_batches(batches)
        require_sampled_rule(rule, v)
        args = BatchedArgs(tree_map(jnp.asarray, batches), args)
    require_cost(cost, has_aux, v, *_example(args))
    return v, args


def require_batches(batches: object) -> None:
    """Raise unless all leaves are arrays with the same number of batches, at least 1."""
    require_arrays(WHO, "batches", batches)
    shapes = [jnp.shape(x) for x in tree_leaves(batches)]
    axes = {shape[:1] for shape in shapes}
    if len(axes) != 1 or axes <= {(), (0,)}:
        text = f"shapes {', '.join(map(str, shapes))}" if shapes else "no arrays"
        raise ShapeError(
            f"{WHO}: batches must be arrays with one leading axis of m ≥ 1 batches, the same m for all, "
            f"got {shown(text, str)}.\nStack the batches, as in x.reshape(m, -1, *x.shape[1:])."
        )


def require_sampled_rule(rule: Transformation, v0: Tree) -> None:
    """Raise if a rule searches with C, because the costs of two updates belong to different batches."""
    searches = (SearchState, NewtonState, WolfeState)
    if isinstance(rule, Rule):
        compares = rule.spec.uses_cost
    else:
        state = eval_shape(rule.init, v0)
        parts = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, searches))
        searched = optax.tree_utils.tree_get_all_with_path(state, "num_linesearch_steps")
        compares = bool(searched) or any(isinstance(x, searches) for x in parts)
    if compares:
        name = shown(rule) if isinstance(rule, Rule) else "this optax transformation"
        raise RangeError(
            f"{WHO}: batches need a rule without a search, but {name} searches with C.\n"
            "The costs of two batches differ by chance. Use gradient_descent, heavy_ball or optax.adam, for instance."
        )


def require_sampled_stop(stop: Stop | None) -> None:
    """Raise if `stop` makes a test that C or ∇C of one batch may meet by chance."""
    if stop is None:
        return
    noisy = ("gradient_atol", "gradient_rtol", "cost", "decrease_atol", "decrease_rtol")
    names = [name for name in noisy if getattr(stop, name) is not None] + ["stalled"] * bool(stop.stalled)
    if names:
        raise RangeError(
            f"{WHO}: with batches, stop must not set {', '.join(names)}: C and ∇C of one batch meet these tests by "
            "chance.\nPass stop=None, or Stop(stalled=False, …) with diverging, step_atol or step_rtol."
        )


def _example(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cost's args. With batches, return only the shapes and dtypes of the args at the first update."""
    if not isinstance(args, BatchedArgs):
        return args
    return eval_shape(args_at, args, 0)


def require_cost(cost: Callable[..., Any], has_aux: bool, *args: object) -> None:
    """Raise unless the cost returns one real scalar C, or a pair (C, aux) if has_aux is True."""
    results: list[Any] = []

    def scalar(*args: object) -> object:
        out = cost(*args)
        results.append(out)
        if is_pair(out) != has_aux:
            return jnp.zeros(())  # The errors below are clearer than require_scalar's.
        c = out[0] if has_aux else out
        require_equal_cost(WHO, c, args[0])
        return c

    def is_pair(out: object) -> bool:
        return isinstance(out, tuple | list) and len(out) == 2

    require_checked_axes(WHO, cost, *args)
    require_scalar(WHO, scalar, *args)
    result = results[-1]
    if is_pair(result) and not has_aux:
        raise ShapeError(
            f"{WHO}: the cost must return one real scalar, got a pair.\nPass has_aux=True if it returns (C, aux)."
        )
    if has_aux and not is_pair(result):
        raise ShapeError(f"{WHO}: with has_aux=True the cost must return a pair (C, aux), got {given(result)}.")
    if has_aux:
        require_arrays(WHO, "aux", result[1], "Return only arrays and numbers in aux.")


def require_state(who: str, state: object) -> None:
    """Raise unless state is a `DescentState` of one descent, not of a batch."""
    if not isinstance(state, DescentState):
        raise DtypeError(f"{who}: state must be the state of a solution, got {describe(state)}.")
    if jnp.ndim(state.step):
        raise ShapeError(
            f"{who}: state must be of one descent, got a batch of shape {jnp.shape(state.step)}.\n"
            "Pass solution.at(i).state, or map over the states with jax.vmap."
        )


def require_bounds(bounds: object, v0: Tree) -> Bounds | None:
    """Return the bounds as trees like v0, in its dtypes; None without bounds. Raise unless they are valid.

    The values of traced bounds are not checked.
    """
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise DtypeError(
            f"{WHO}: bounds must be a pair (lower, upper), got {given(bounds)}.\n"
            "Each is a tree like v0, one number for all variables, or None for no bound."
        )
    box = Bounds(*(_bound(name, x, v0) for name, x in zip(Bounds._fields, bounds, strict=True)))
    if not any(map(is_traced, tree_leaves(box))) and not box.valid:
        raise RangeError(
            f"{WHO}: bounds must have lower ≤ upper in the dtypes of v0, lower below ∞, upper above −∞, and no NaN.\n"
            "Pass None, −inf or inf where a variable has no bound."
        )
    return box


def _bound(name: str, x: Any, v0: V) -> V:
    sign = -1 if name == "lower" else 1
    if x is None:
        return tree_map(lambda v: jnp.asarray(sign * jnp.inf, v.dtype), v0)
    if is_real(x):
        return tree_map(lambda v: jnp.asarray(x, v.dtype), v0)
    if outline(x)[0] != outline(v0)[0]:
        raise ShapeError(
            f"{WHO}: bounds must be trees like v0, but {name} has another structure: got {given(x)}.\n"
            "Pass arrays with the shapes of v0, one number for all variables, or None for no bound."
        )

    def leaf(path: tuple[Any, ...], b: Field, v: Array) -> Array:
        place = f"{name}{jax.tree_util.keystr(path)}"
        dtype = dtype_of(b)
        if dtype is None or not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise DtypeError(f"{WHO}: bounds must be real numbers, but {place} is {given(b)}.")
        if jnp.shape(b) not in ((), v.shape):
            raise ShapeError(
                f"{WHO}: bounds must have the shapes of v0, but {place} has shape {jnp.shape(b)}, expected {v.shape}."
            )
        return jnp.asarray(b, v.dtype)

    bound: V = jax.tree_util.tree_map_with_path(leaf, x, v0)
    return bound


def configured(
    cost: Callable[..., Any],
    rule: Transformation,
    v: Tree,
    args: tuple[Any, ...],
    record: Record | None,
    max_steps: int | None,
    has_aux: bool = False,
) -> tuple[StaticConfig, Rule | None, tuple[Any, ...]]:
    """Return the static configuration, the rule if it is one of jaxgd's, and the args of the configured cost.

    Traced arrays in the cost's closure become args. JAX can then differentiate with respect to them and map over them.
    """
    cost = seen(cost)
    converted, hoisted = jax.closure_convert(cost, v, *_example(args))
    if hoisted:
        cost = converted
        more = args.args if isinstance(args, BatchedArgs) else args
        more = (*more, *hoisted)
        args = args._replace(args=more) if isinstance(args, BatchedArgs) else more
    if has_aux:
        cost = WithoutAux(cost)
    traced, other = (rule, None) if isinstance(rule, Rule) else (None, rule)
    step_size = "learning rate" if traced is None else traced.step_size
    return StaticConfig(cost, other, record, max_steps, step_size), traced, args


def require_same_rule(who: str, rule: Transformation, state: DescentState[Any]) -> None:
    """Raise unless `state.rule` has the structure, shapes and dtypes of this rule's state."""
    require_variables(who, "state.v", state.v)
    if outline(eval_shape(rule.init, state.v)) != outline(state.rule):
        raise RangeError(
            f"{who}: state must come from {shown(rule)}, but another rule made it.\nContinue with that rule."
        )

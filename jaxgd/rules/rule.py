"""The class Rule: an optax transformation with its hyperparameters as data."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxgd.errors import RangeError, is_traced, require_positive, require_real, shown
from jaxgd.rules.entry import Hyperparam
from jaxgd.rules.registry import RULES


@runtime_checkable
class Transformation(Protocol):
    """A rule as a pair of functions: a `Rule`, or any transformation of optax."""

    @property
    def init(self) -> Callable[..., Any]:
        """The function `init(v)`, which returns the state of the rule at the start v."""

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]:
        """The function `update(gradient, state, v, **extra)`, which returns the step Δv and the next state.

        `minimize` passes `value`, `grad` and `value_fn` to a rule that takes extra arguments. If the run has
        bounds, it passes `bounds` too.
        """


@dataclasses.dataclass(frozen=True)
class RuleSpec:
    """The description of a rule without the values of its hyperparameters.

    Attributes:
        name: The name of the function that makes the rule. It has an entry in the registry.
        build: `build(**hyperparams, **static_args)` returns the optax transformation.
        rate: `rate(state, **hyperparams, **static_args)` returns the η of the next step, or the last accepted
            η of a search. `rate` is None if the rule has no η.
        unrolls: True if reverse-mode differentiation works through the rule's steps.
        may_step_zero: True if the rule may move again after a step of 0, as with a schedule.
        uses_cost: True if the rule needs C(v).
        caches_value: True if the rule's state holds v before the last step, and C and ∇C after it.
    """

    name: str
    build: Callable[..., Transformation]
    rate: Callable[..., ArrayLike] | None = None
    unrolls: bool = True
    may_step_zero: bool = False
    uses_cost: bool = False
    caches_value: bool = False

    @property
    def hyperparams(self) -> tuple[Hyperparam, ...]:
        """The hyperparameters, with their ranges."""
        return RULES[self.name].hyperparams


_RENAMED = {"kind": "spec", "numbers": "hyperparams", "settings": "static_args"}


class Rule(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """A rule that chooses a step from a gradient.

    A rule is an optax transformation (init, update) and also a pytree. Its hyperparameters are leaves: `jit` traces
    them and `vmap` maps over them, so a new η does not recompile. Combinators such as `optax.chain` accept a rule.
    Inside a combinator, the hyperparameters are constants, as in optax.

    Attributes:
        spec: The description of the rule.
        hyperparams: The hyperparameters by name, such as eta. `jit` traces them.
        static_args: The arguments that fix the compiled program, as pairs of name and value.

    Example:
        >>> from jaxgd import gradient_descent
        >>> gradient_descent(0.1)
        gradient_descent(eta=0.1)
        >>> rule = jax.vmap(gradient_descent)(jnp.array([0.1, 1.0]))  # a batch of rules
        >>> print(rule.hyperparams["eta"])
        [0.1 1. ]
    """

    spec: RuleSpec
    hyperparams: dict[str, Any]
    static_args: tuple[tuple[str, Any], ...]

    def __new__(cls, spec: RuleSpec, hyperparams: Mapping[str, Any], **static_args: Any) -> "Rule":
        """Make a rule. Its hyperparameters are not checked here, because JAX may put any object in their place."""

        def built() -> Transformation:
            rule: Transformation = optax.with_extra_args_support(spec.build(**hyperparams, **static_args))
            return rule

        def update(updates: object, state: object, params: object = None, **extra: object) -> tuple[Any, Any]:
            # Optax passes some arguments by name, so this function uses optax's names.
            return built().update(updates, state, params, **extra)

        rule: Rule = super().__new__(cls, lambda params: built().init(params), update)
        rule.spec, rule.hyperparams, rule.static_args = spec, dict(hyperparams), tuple(static_args.items())
        return rule

    def __getattr__(self, name: str) -> Any:
        """Return an attribute by the name that it had before version 0.2. This lookup stays for one release."""
        if name not in _RENAMED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warnings.warn(f"Rule.{name} is now Rule.{_RENAMED[name]}.", DeprecationWarning, stacklevel=2)
        return getattr(self, _RENAMED[name])

    def __repr__(self) -> str:
        """Show the call that makes the rule: gradient_descent(eta=0.1)."""
        hyperparams = {**self.hyperparams, **dict(self.static_args)}
        return f"{self.spec.name}({', '.join(f'{name}={_number(x)}' for name, x in hyperparams.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the description and the arguments. A schedule must be a function that pickle finds by its name."""
        return _unflatten, ((self.spec, tuple(self.hyperparams), self.static_args), tuple(self.hyperparams.values()))

    @property
    def valid(self) -> Bool[Array, ""]:
        """True if all hyperparameters are in range. Numbers that were traced when the rule was made are checked too."""
        numbers: list[tuple[Hyperparam, Array]] = [
            (h, self.hyperparams[h.name]) for h in self.spec.hyperparams if h.name in self.hyperparams
        ]
        checks = [(x >= 0) & (x < 1) if h.fraction else jnp.isfinite(x) & (x > 0) for h, x in numbers]
        return jnp.all(jnp.array(checks, bool))

    @property
    def step_size(self) -> str | None:
        """The name of the hyperparameter that scales the steps, such as "eta"; None if the rule chooses the scale."""
        return next((h.name for h in self.spec.hyperparams if not h.fraction), None)

    def rate(self, state: object) -> Float[Array, ""]:
        """Return the η of the next step, or the last accepted η of a search; NaN if this rule has no η."""
        if self.spec.rate is None:
            return jnp.array(jnp.nan)
        return jnp.asarray(self.spec.rate(state, **self.hyperparams, **dict(self.static_args)), float)


def checked_rule(spec: RuleSpec, **hyperparams: object) -> Rule:
    """Make a rule. Raise unless its hyperparameters are numbers in their ranges. A traced number may have any value."""
    for h in spec.hyperparams:
        require = _require_fraction if h.fraction else require_positive
        require(spec.name, h.name, hyperparams[h.name])
    return Rule(spec, hyperparams)


def _require_fraction(who: str, name: str, x: Any) -> None:
    require_real(who, name, x)
    if not (is_traced(x) or 0 <= float(x) < 1):
        raise RangeError(f"{who}: {name} must be at least 0 and below 1, got {shown(x, str)}.\nThe usual value is 0.9.")


def _number(x: Any) -> str:
    return str(x) if isinstance(x, jax.core.Tracer) or callable(x) else f"{x:g}" if jnp.ndim(x) == 0 else str(x)


_About = tuple[RuleSpec, tuple[str, ...], tuple[tuple[str, Any], ...]]


def _flatten(rule: Rule) -> tuple[tuple[Any, ...], _About]:
    return tuple(rule.hyperparams.values()), (rule.spec, tuple(rule.hyperparams), rule.static_args)


def _unflatten(about: _About, values: Iterable[object]) -> Rule:
    spec, names, static_args = about
    return Rule(spec, dict(zip(names, values, strict=True)), **dict(static_args))


jax.tree_util.register_pytree_node(Rule, _flatten, _unflatten)

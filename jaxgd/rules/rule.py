"""An optax transformation whose numbers are data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a rule does, without its numbers: its name, and how it is built of them.

    `build(**numbers, **settings)` is the optax transformation; `positive` are the numbers that must be above 0,
    `fractions` those that must lie in [0, 1). `rate(state, **numbers, **settings)` is the η of the next step.
    `unrolls` is whether reverse mode can go back through its steps, `waits` whether a step of 0 may be followed by
    others, `uses_cost` whether it takes C(v), `keeps_value` whether its state holds C and ∇C where its step ends.
    """

    name: str
    build: Callable[..., Any]
    positive: tuple[str, ...] = ()
    fractions: tuple[str, ...] = ()
    rate: Callable[..., Any] | None = None
    unrolls: bool = True
    waits: bool = False
    uses_cost: bool = False
    keeps_value: bool = False


class Rule(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """How a step is chosen from a gradient: an optax transformation, (init, update), and a pytree of its numbers.

    Since the numbers are leaves, `jit` traces them and `vmap` maps over them: another η compiles nothing anew. It
    chains and combines as any transformation of optax does; then its numbers are fixed, as optax's are.
    """

    kind: Kind
    numbers: dict[str, Any]
    settings: tuple[tuple[str, Any], ...]

    def __new__(cls, kind: Kind, numbers: Mapping[str, Any], **settings: Any) -> "Rule":
        """Make a rule; the numbers are not checked here, since JAX puts other things in their places at times."""

        def built() -> Any:
            return optax.with_extra_args_support(kind.build(**numbers, **settings))

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            # Named as optax names them, which passes some by name.
            return built().update(updates, state, params, **extra)

        rule: Rule = super().__new__(cls, lambda params: built().init(params), update)
        rule.kind, rule.numbers, rule.settings = kind, dict(numbers), tuple(settings.items())
        return rule

    def __repr__(self) -> str:
        """As it was made: gradient_descent(eta=0.1)."""
        numbers = {**self.numbers, **dict(self.settings)}
        return f"{self.kind.name}({', '.join(f'{name}={_number(x)}' for name, x in numbers.items())})"

    @property
    def valid(self) -> Bool[Array, ""]:
        """Whether all numbers are in range; those that were traced could not be checked before."""
        checks = [jnp.isfinite(self.numbers[name]) & (self.numbers[name] > 0) for name in self.kind.positive]
        checks += [(self.numbers[name] >= 0) & (self.numbers[name] < 1) for name in self.kind.fractions]
        return jnp.all(jnp.array(checks, bool))

    def rate(self, state: Any) -> Float[Array, ""]:
        """The η of the next step; NaN if this rule has none."""
        if self.kind.rate is None:
            return jnp.array(jnp.nan)
        return jnp.asarray(self.kind.rate(state, **self.numbers, **dict(self.settings)), float)


def _number(x: Any) -> str:
    return str(x) if isinstance(x, jax.core.Tracer) or callable(x) else f"{x:g}" if jnp.ndim(x) == 0 else str(x)


def _flatten(rule: Rule) -> tuple[tuple[Any, ...], Any]:
    return tuple(rule.numbers.values()), (rule.kind, tuple(rule.numbers), rule.settings)


def _unflatten(about: Any, values: Any) -> Rule:
    kind, names, settings = about
    return Rule(kind, dict(zip(names, values, strict=True)), **dict(settings))


jax.tree_util.register_pytree_node(Rule, _flatten, _unflatten)

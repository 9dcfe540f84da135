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
    """What a rule does, without its numbers.

    `build(**numbers, **settings)` is the optax transformation; `positive` are the numbers that must be above 0,
    `fractions` those that must lie in [0, 1). `rate(state, **numbers, **settings)` is the η of the next step.
    """

    build: Callable[..., Any]
    positive: tuple[str, ...] = ()
    fractions: tuple[str, ...] = ()
    rate: Callable[..., Any] | None = None


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

        rule: Rule = super().__new__(
            cls, lambda v: built().init(v), lambda g, state, v=None, **extra: built().update(g, state, v, **extra)
        )
        rule.kind, rule.numbers, rule.settings = kind, dict(numbers), tuple(settings.items())
        return rule

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


def _flatten(rule: Rule) -> tuple[tuple[Any, ...], Any]:
    return tuple(rule.numbers.values()), (rule.kind, tuple(rule.numbers), rule.settings)


def _unflatten(about: Any, values: Any) -> Rule:
    kind, names, settings = about
    return Rule(kind, dict(zip(names, values, strict=True)), **dict(settings))


jax.tree_util.register_pytree_node(Rule, _flatten, _unflatten)

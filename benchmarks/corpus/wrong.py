"""Functions with wrong derivatives of a known kind, at smooth points. A checker must call all of them wrong."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from .bases import BASES
from .case import IS_WRONG, Case
from .draws import Draw, away, distinct, fixed, fractions, normal, tree
from .kinds import KINDS, of_kind, with_jvp, with_vjp
from .networks import attention
from .rules import FORWARD_RULES, RULES

wrong_sine = with_vjp(jnp.sin, lambda x, g: (0.999 * g * jnp.cos(x),))


def batch_norm_detached(x: Array, gain: Array, bias: Array) -> Array:
    """Return batch norm. The gradient treats the mean and the variance as constants."""
    mean, variance = lax.stop_gradient((jnp.mean(x, axis=0), jnp.var(x, axis=0)))
    return (x - mean[None]) / jnp.sqrt(variance[None] + 1e-5) * gain[None] + bias[None]


def truncated_rnn(w: Array, u: Array, x: Array) -> Array:
    """Return the states of a recurrent network. The gradient covers only the last step of each state."""

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = jnp.tanh(w @ lax.stop_gradient(h) + u @ x)
        return h, h

    return lax.scan(step, jnp.zeros(w.shape[0], w.dtype), x)[1]


# Functions without a rule of their own. Autodiff differentiates them wrongly, because of a stop_gradient, a wrong rule
# inside, or a NaN.
PLAIN: tuple[tuple[str, Callable[..., object], Draw, str], ...] = (
    ("x·stop(x)", lambda x: x * lax.stop_gradient(x), away(), "stop_gradient in one path"),
    ("stop(sin x)", lambda x, y: lax.stop_gradient(jnp.sin(x)) + y, normal((5,), (5,)), "stop_gradient"),
    ("logsumexp, one maximum", lambda x: lax.stop_gradient(jnp.max(x)) + jnp.log(jnp.sum(jnp.exp(
        x - jnp.max(x)))), distinct((5,)), "stop_gradient on one of two maxima"),
    ("softmax, denominator", lambda x: jnp.exp(x) / lax.stop_gradient(jnp.sum(jnp.exp(x))), normal((5,)),
     "stop_gradient on the denominator"),
    ("batch norm, statistics", batch_norm_detached, normal((6, 3), (3,), (3,)), "stop_gradient on the statistics"),
    ("attention, keys", lambda q, k, v: attention(q, lax.stop_gradient(k), v), normal((3, 4), (5, 4), (5, 2)),
     "stop_gradient on a leaf"),
    ("truncated recurrence", truncated_rnn, normal((4, 4), (4, 3), (6, 3), scale=0.7), "stop_gradient on the state"),
    ("target network", lambda w, x: jnp.mean((jnp.tanh(x @ w) - 0.9 * lax.stop_gradient(jnp.tanh(2 * x @ w))) ** 2),
     normal((3,), (5, 3)), "stop_gradient on the target"),
    ("quantized", lambda x: x + lax.stop_gradient(jnp.round(x) - x), fractions(),
     "nonzero gradient where the slope is 0"),
    ("weight decay", lambda w: jnp.sum(jnp.sin(w)) + 0.001 * lax.stop_gradient(jnp.sum(w**2)), away(),
     "stop_gradient on a small term"),
    ("wrong inside", lambda x: jnp.sum(jnp.exp(wrong_sine(x**2))), away(), "×0.999 in the middle"),
    ("wrong in a sum", lambda x: jnp.sum(jnp.cos(x)) + 0.5 * jnp.sum(wrong_sine(x)), away(), "×0.999 in a small term"),
    ("wrong in a scan", lambda x: lax.scan(lambda h, _: (wrong_sine(h) + x, None), x, None, length=4)[0], away(),
     "×0.999 in a loop"),
    ("wrong in a tree", lambda t: {"a": jnp.sin(t["a"]), "b": wrong_sine(t["b"])},
     tree(lambda a, b: {"a": a, "b": b}, away(), away()), "×0.999 in one of two leaves"),
    ("where over sqrt", lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), fixed([0.5, -1.0, 2.0]),
     "NaN from the other branch"),
    ("where over log", lambda x: jnp.sum(jnp.where(x > 0, x * jnp.log(x), x)), fixed([0.5, -1.0, 2.0]),
     "NaN from the other branch"),
    ("length squared at 0", lambda x: jnp.linalg.norm(x) ** 2, fixed([0.0, 0.0, 0.0]),
     "NaN from the slope of the length"),
    ("exp overflows", lambda x: jnp.where(x < 50, jnp.log1p(jnp.exp(x)), x), fixed([1.0, 800.0, -2.0]),
     "NaN from the other branch"),
)  # fmt: skip


WRONG = (
    *(
        Case(f"{name}: {kind}", of_kind(f, KINDS[kind]), draw, (IS_WRONG,), kind=kind)
        for name, f, draw, kinds in BASES
        for kind in kinds
    ),
    *(
        Case(f"{name}: {kind}", with_vjp(f, backward), draw, (IS_WRONG,), kind=kind)
        for name, f, backward, draw, kind in RULES
    ),
    *(
        Case(f"{name}: {kind}", with_jvp(f, forward), draw, (IS_WRONG,), kind=kind)
        for name, f, forward, draw, kind in FORWARD_RULES
    ),
    *(Case(f"{name}: {kind}", f, draw, (IS_WRONG,), kind=kind) for name, f, draw, kind in PLAIN),
)

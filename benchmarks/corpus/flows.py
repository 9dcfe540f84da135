"""Right derivatives of solvers, control flow, hand-written rules and functions of trees."""

from collections.abc import Callable
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax import Array, lax, nn

from jaxgd.typed import fori_loop, grad, jvp, map_rows

from .case import Case
from .draws import away, distinct, normal, together, tree, uniform, whole
from .typed import custom_root


def runge_kutta(v: Array, rate: Array) -> Array:
    """Return v = (θ, θ′) of the pendulum θ″ = −rate sin θ after ten steps of the classical Runge–Kutta method."""

    def slope(v: Array) -> Array:
        return jnp.stack([v[1], -rate * jnp.sin(v[0])])

    def step(v: Array, _: None) -> tuple[Array, None]:
        h = 0.1
        a = slope(v)
        b = slope(v + h / 2 * a)
        c = slope(v + h / 2 * b)
        d = slope(v + h * c)
        return v + h / 6 * (a + 2 * b + 2 * c + d), None

    return lax.scan(step, v, None, length=10)[0]


def newton_root(a: Array) -> Array:
    """Return √a by Newton's method, with implicit differentiation."""

    def solve(g: Callable[[Array], Array], x: Array) -> Array:
        return fori_loop(0, 30, lambda _, x: x - g(x) / jvp(g, (x,), (jnp.ones_like(x),))[1], x)

    return custom_root(lambda x: x**2 - a, jnp.ones_like(a), solve, lambda g, y: y / g(jnp.ones_like(y)))


def chosen_branch(x: Array) -> Array:
    """Return the sum of a branch of `lax.cond` and a branch of `lax.switch`."""
    first: Array = lax.cond(x[0] > 0, jnp.sin, lambda x: x**2, x)
    second: Array = lax.switch(1, [jnp.cos, jnp.tanh], x)
    return first + second


def looped(x: Array) -> Array:
    """Return the result of a loop of known length, which reverse mode can differentiate."""
    return fori_loop(0, 5, lambda i, y: jnp.sin(y) + x * i, x)


def logistic_map(x: Array) -> Array:
    """Return x after twelve updates x ← 3.7 x (1 − x). The updates move nearby points far apart."""
    return fori_loop(0, 12, lambda _, x: 3.7 * x * (1 - x), x)


def hessian_product(x: Array, u: Array) -> Array:
    """Return the product ∇²C(x) u for C = Σ sin(x) + (Σx)³: a function that contains derivatives."""
    return jvp(grad(lambda x: jnp.sum(jnp.sin(x)) + jnp.sum(x) ** 3), (x,), (u,))[1]


# Hand-written rules with right derivatives.


@jax.custom_jvp
def log1pexp(x: Array) -> Array:
    """Return log(1 + eˣ)."""
    return jnp.log1p(jnp.exp(x))


@log1pexp.defjvp
def _log1pexp_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return log1pexp(x), nn.sigmoid(x) * dx


@jax.custom_vjp
def sine_times(x: Array, y: Array) -> Array:
    """Return y sin x."""
    return y * jnp.sin(x)


sine_times.defvjp(lambda x, y: (y * jnp.sin(x), (x, y)), lambda xy, g: (g * xy[1] * jnp.cos(xy[0]), g * jnp.sin(xy[0])))


# Trees.


class Pair(NamedTuple):
    """A named tuple, which JAX flattens as a pytree."""

    left: Array
    right: Array


class Tree(TypedDict):
    """A dict with a leaf, and with a list that holds a leaf."""

    a: Array
    b: list[Array]


def of_trees(tree: Tree, pair: Pair) -> object:
    """Return a tree. The arguments are trees too."""
    return {"sum": tree["a"] + pair.left, "rest": (jnp.exp(tree["b"][0]), pair.right * jnp.sum(tree["a"]))}


def with_whole_numbers(tree: dict[str, Array]) -> Array:
    """Return powers of some elements. The tree also holds whole numbers: the power n and the indices `place`."""
    return tree["x"][tree["place"]] ** tree["n"]


def with_argmax(x: Array) -> dict[str, Array]:
    """Return the square of the largest element, and its index, which is a whole number."""
    return {"place": jnp.argmax(x), "value": jnp.max(x) ** 2}


FLOWS = (
    Case("Runge–Kutta", runge_kutta, together(normal((2,)), uniform(0.5, 2.0, ()))),
    Case("root by Newton", newton_root, uniform(0.5, 3.0)),
    Case("cond and switch", chosen_branch, away()),
    Case("fori_loop", looped, normal()),
    Case("logistic map", logistic_map, uniform(0.2, 0.8)),
    Case("Hessian product inside", hessian_product, normal((4,), (4,))),
    Case("gradient penalty", lambda w, x: jnp.sum(grad(lambda x: jnp.sum(jnp.tanh(w @ x)))(x) ** 2),
            normal((3, 4), (4,))),
    Case("vmap inside", jax.vmap(lambda x, y: jnp.sin(x) @ y), normal((3, 4), (3, 4))),
    Case("jit inside", jax.jit(lambda x: jnp.sin(x) * x), normal()),
    Case("checkpoint", jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), normal()),
    Case("lax.map", lambda x: map_rows(lambda row: nn.softmax(row) * row, x), normal((3, 4))),
    Case("custom_jvp", log1pexp, normal()),
    Case("custom_vjp", sine_times, normal((5,), (5,))),
    Case("custom_vjp inside", lambda x, y: jnp.exp(sine_times(x**2, y)), normal((5,), (5,))),
    Case("trees", of_trees, together(
        tree(lambda a, b: {"a": a, "b": [b, None]}, normal((3,), (2,))), tree(Pair, normal((3,), ())))),
    Case("whole numbers among the arguments", with_whole_numbers,
            tree(lambda x, i, n: {"x": x, "place": i, "n": n}, away((5,)), whole([1, 4, 1], 3))),
    Case("whole numbers among the results", with_argmax, distinct((6,))),
    Case("an empty leaf", lambda x, y: jnp.sum(x) + y**2, normal((0,), (3,))),
)  # fmt: skip

"""Arguments and functions as users pass them: containers, whole numbers, keys, objects, and control flow in Python."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import io_callback, sparse
from jax.typing import ArrayLike, DTypeLike

from jaxgd.typed import grad, jit

from .case import CANNOT_TELL, Case, undecided, wrong
from .draws import Args, Draw, array, fixed, together, tree, whole
from .kinds import times_gradient
from .typed import Spec, Struct, psum

A = np.arange(1.0, 7.0).reshape(2, 3)
V = np.array([1.0, -2.0, 3.0])
Z = np.array([1 + 2j, 0.5 - 1j])
UP = np.arange(1.0, 9.0)


def square(x: Array) -> Array:
    """Return Σ x²."""
    return jnp.sum(x**2)


def sines(x: Array) -> Array:
    """Return Σ sin x."""
    return jnp.sum(jnp.sin(x))


def constant(*values: object) -> Draw:
    """Return a draw that always gives these arguments."""
    return lambda rng, dtype: values


def key(draw: Draw, impl: str | None = None) -> Draw:
    """Draw arguments with `draw`, followed by a random key."""
    return lambda rng, dtype: (*draw(rng, dtype), jax.random.key(0, impl=impl))


# Containers and dtypes.


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=["act"])
@dataclasses.dataclass(frozen=True)
class Dense:
    """A layer with a static field."""

    w: Array
    b: Array
    act: str = "tanh"

    def __call__(self, x: Array) -> Array:
        y: Array = getattr(jnp, self.act)(self.w @ x + self.b)
        return y


def draw_dense(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    return Dense(array(rng.normal(size=(3, 4)), dtype), array([0.1, -0.2, 0.3], dtype)), array(np.arange(4.0), dtype)


def dense_loss(layer: Dense, x: Array) -> Array:
    return square(layer(x))


def dense_gradient(layer: Dense, x: Array) -> Dense:
    g = grad(dense_loss)(layer, x)
    return dataclasses.replace(g, b=g.b.at[1].multiply(1.01))


def draw_tree(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    """Draw a dict with floats, None, a flag, whole numbers and text."""
    return ({"w": array(A, dtype), "i": jnp.array(1), "none": None, "flag": True, "k": 3, "text": "sum"},)


class Cost:
    """A callable object without a hash."""

    scale = 2.0
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, x: Array) -> Array:
        return self.scale * square(x)

    def method(self, x: Array) -> Array:
        return self(x)


@functools.partial(jax.jit, static_argnums=1, static_argnames=("axis",))
def power(x: Array, n: int, axis: int = 0) -> Array:
    return jnp.sum(x**n, axis=axis)


def bcoo(values: Array, x: Array) -> Array:
    """Return Σ sin(m x) for a sparse matrix m with these values."""
    m = sparse.BCOO((values, jnp.array([[0, 1], [1, 1], [2, 0]])), shape=(3, 2))
    return sines(m @ x)


def draw_bcoo(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    places = jnp.array([[0, 1], [1, 1], [2, 0]])
    m = sparse.BCOO((array([1.0, -2.0, 0.5], dtype), places), shape=(3, 2))
    return m, array([0.3, 0.7], dtype)


def sharded(w: Array, x: Array) -> Array:
    """Return Σ sin(x w) by `jax.shard_map` on a mesh of one device."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (Spec(), Spec("d"))
    total: Callable[[Array, Array], Array] = jax.shard_map(
        lambda w, x: psum(sines(x @ w), "d"), mesh=mesh, in_specs=specs, out_specs=Spec()
    )
    return total(w, x)


def batch_sum(w: Array, d: Array) -> Array:
    totals: Array = jax.vmap(lambda d: psum((w**2 + 1) * d, "batch"), axis_name="batch")(d)
    return totals[0]


# Functions with varying values or side effects, and functions that lack a mode of autodiff.


def by_numpy_generator() -> Callable[..., Array]:
    rng = np.random.default_rng(0)
    return lambda x: jnp.sum(jnp.sin(x) * rng.standard_normal(x.shape))


def doubled_under_jit(x: Array) -> Array:
    return square(x) * (2 if isinstance(x, jax.core.Tracer) else 1)


def doubled_under_vmap(x: Array) -> Array:
    f = jax.custom_batching.custom_vmap(lambda x: x**2)
    f.def_vmap(lambda axis_size, in_batched, x: (2 * x**2, True))
    return jnp.sum(f(x))


def with_prints(ordered: bool) -> Callable[..., Array]:
    """Return Σ sin x, with callbacks on the host that JAX treats as side effects."""

    def f(x: Array) -> Array:
        io_callback(lambda y: None, None, lax.stop_gradient(jnp.sum(x)), ordered=ordered)
        jax.debug.callback(lambda y: None, x)
        return sines(x)

    return f


def root_by_while(x: Array) -> Array:
    """Return √x by Heron's method in a loop that has no reverse mode."""
    return lax.while_loop(lambda s: s[1] < 40, lambda s: ((s[0] + x / s[0]) / 2, s[1] + 1), (x, 0))[0]


def by_callback(x: Array, y: Array) -> Array:
    """Return Σ sin(x + y) by NumPy. The callback has neither a derivative nor a rule for vmap."""
    return jnp.sum(jax.pure_callback(np.sin, Struct(x.shape, x.dtype), x + y))


def numpy_logs(x: ArrayLike, y: ArrayLike) -> float:
    """Return (Σ log x) + log y by NumPy. Raise ValueError outside the domain."""
    a, b = np.asarray(x), np.asarray(y)
    if (a <= 0).any() or b <= 0:
        raise ValueError("not above 0")
    return float(np.sum(np.log(a)) + np.log(b))


def log_gradient(factor: float) -> Callable[..., object]:
    return lambda x, y: (1 / np.asarray(x), factor / np.asarray(y))


INPUTS = (
    Case("integers, None, flags and text among the arguments", lambda p: square(p["w"][p["i"]]), draw_tree),
    Case("an empty leaf among others", lambda p: square(p[0]) + jnp.sum(p[1]),
         lambda rng, dtype: ((array(A, dtype), jnp.zeros((0, 3), dtype)),)),
    Case("only an empty leaf", jnp.sum, fixed(np.zeros((1, 0)))),
    Case("two empty leaves", lambda x, y: x @ y, fixed(np.zeros((0, 3)), np.zeros((3, 0)))),
    Case("an empty result", lambda x: jnp.sin(x)[:0], fixed(V)),
    Case("an empty result among others", lambda x: (x[:0], jnp.sin(x)), fixed(V)),
    Case("a Python float", jnp.sin, constant(1.5)),
    Case("a power of a Python float", lambda x: x**3, constant(2.0)),
    Case("a list of Python floats", lambda xs: xs[0] * xs[1], constant([1.0, 2.0])),
    Case("a list of scalars", lambda p: p[0] * jnp.sin(p[1]), tree(lambda *xs: [*xs], fixed(1.0, 2.0))),
    Case("None in a tree", lambda p: jnp.sum(p["w"] ** 3), tree(lambda w: {"w": w, "b": None}, fixed(V))),
    Case("text that chooses a function", lambda x, how: {"sin": jnp.sin, "cos": jnp.cos}[how](x),
         together(fixed(V), constant("sin"))),
    Case("leaves of 1e-30, 1 and 1e30",
         lambda p: jnp.sum(jnp.sin(p["a"] * 1e30)) + jnp.sum(jnp.log(p["b"])) + square(p["c"]),
         tree(lambda a, b, c: {"a": a, "b": b, "c": c}, fixed(A * 1e-30, A * 1e30, A))),
    Case("ratios of 1e-22 with pressures of 1e5", lambda q, p: jnp.sum(jnp.log1p(q * 1e22) * jnp.sqrt(p)),
         fixed([1e-22, 3e-22], [1e5, 9e4])),
    Case("a dataclass with a static field", dense_loss, draw_dense),
    wrong("a dataclass, one bias ×1.01", dense_loss, draw_dense, gradient=dense_gradient),
    Case("a callable object without a hash", Cost(), fixed(A), gradient=lambda x: 4 * x),
    Case("a method of an object without a hash", Cost().method, fixed(A), gradient=lambda x: 4 * x),
    Case("a jitted method", jit(Cost().method), fixed(A), gradient=lambda x: 4 * x),
    Case("a partial function", functools.partial(lambda k, x: k * square(x), 2.0), fixed(A), gradient=lambda x: 4 * x),
    Case("a partial function of a keyword", functools.partial(power, n=3), fixed(A)),
    Case("a static argument of jit", power, together(fixed(A), constant(3))),
    Case("a keyword argument of a jitted function", lambda x: power(x, 3, axis=1), fixed(A)),
    Case("a sparse matrix inside f", bcoo, fixed([1.0, -2.0, 0.5], [0.3, 0.7])),
    Case("a sparse matrix as argument", lambda m, x: sines(m @ x), draw_bcoo),
    Case("shard_map", sharded, fixed([0.3, 0.7], np.arange(8.0).reshape(4, 2) / 3)),
    Case("psum under vmap", batch_sum, fixed(1.3, [1.0, 2.0, 3.0, 4.0]), argnums=0),
    wrong("psum under vmap, gradient × 4", batch_sum, fixed(1.3, [1.0, 2.0, 3.0, 4.0]),
          gradient=lambda w, d: 4 * grad(batch_sum)(w, d)),
    Case("auxiliary output with text", lambda x: (square(x), {"n": 3, "name": "x"}), fixed(A),
         options={"has_aux": True}),
    Case("integers among the results", lambda x: {"y": x**2, "n": jnp.argmax(x)}, fixed(A)),
    Case("an argument that f ignores", lambda x, y: square(x), fixed(A, A)),
    Case("an argument of which f uses only the shape", lambda x, y: 1e9 * sines(x) + jnp.sum(jnp.ones_like(y)),
         fixed(V, V)),
    Case("a leaf that f ignores", lambda p: sines(p["x"]), tree(lambda x, y: {"x": x, "y": y}, fixed(V, [1.0, 1.0]))),
    Case("no dependence at all", lambda x: jnp.arange(3.0) + 1e6, fixed(V)),
    Case("a large constant, and a second argument that f ignores", lambda x, y: 1e12 + square(x), fixed(V, V),
         argnums=1),
    wrong("nonzero gradient for a leaf that f ignores", lambda p: sines(p["x"]), tree(
        lambda x, y: {"x": x, "y": y}, fixed(V, [1.0, 1.0])), gradient=lambda p: {
            "x": jnp.cos(p["x"]), "y": jnp.full_like(p["y"], 1e-3)}),
    wrong("nonzero gradient for an argument that f ignores", lambda x, y: square(x), fixed(A, A),
          gradient=lambda x, y: x, argnums=1),
    Case("exponents that f rounds", lambda x, n: jnp.sum(x ** jnp.round(n)), fixed([1.5, 2.0], [2.0, 3.0])),
    Case("floor between whole numbers", lambda x: jnp.sum(jnp.floor(x) * x), fixed([1.5, 2.2])),
    wrong("floor between whole numbers, gradient x", lambda x: jnp.sum(jnp.floor(x) * x), fixed([1.5, 2.2]),
          gradient=lambda x: x),
    Case("piecewise constant", lambda x: jnp.floor(x) + x, fixed(A + 0.5)),
    undecided("floor at 1", lambda x: jnp.floor(x) + x, fixed([1.0, 2.5]), "jump"),
    Case("a million oscillations", lambda x: jnp.sum(jnp.sin(1e6 * x)), fixed(A)),
    Case("Python's if", lambda x: square(x) if jnp.sum(x) > 0 else jnp.sum(x), fixed(A)),
    Case("a branch chosen by the first element", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), fixed([0.5, 1.0])),
    Case("mod 1", lambda x: jnp.mod(x, 1.0) ** 2, fixed([3.3, -0.7])),
    Case("sorted elements times weights", lambda x: jnp.sort(x)[::-1] * jnp.arange(1, 5), fixed([3.0, 1.0, 2.0, -1.0])),
    Case("squares of the two largest", lambda x: lax.top_k(x, 2)[0] ** 2, fixed([3.0, 1.0, 2.0, -1.0])),
    Case("the largest times the first", lambda x: x[jnp.argmax(x)] * x[0], fixed([3.0, 1.0, 5.0, -1.0])),
    Case("logs under debug_nans", lambda x: jnp.sum(jnp.log(x)), fixed([0.5, 2.0]), settings={"debug_nans": True}),
    Case("a random key", lambda x, key: jnp.sum(x * jax.random.normal(key, x.shape)), key(fixed(A))),
    Case("a random key of another generator", lambda x, key: jnp.sum(x * jax.random.normal(key, x.shape)),
         key(fixed(A), "rbg")),
    Case("an old-style random key", lambda key, x: jnp.sum(jnp.sin(x) * jax.random.normal(key, x.shape)),
         lambda rng, dtype: (jax.random.PRNGKey(3), array(UP, dtype))),
    Case("dropout by a key", lambda x, key: 2 * jnp.sum(jnp.where(jax.random.bernoulli(key, 0.5, x.shape),
         jnp.sin(x), 0)), key(fixed(UP))),
    Case("Gumbel softmax", lambda x, key: square(jax.nn.softmax(
        (x + jax.random.gumbel(key, x.shape, x.dtype)) / 0.5)), key(fixed([0.3, -0.2, 1.0]))),
    undecided("dropout by NumPy's generator", by_numpy_generator(), fixed(UP), "not deterministic"),
    undecided("twice the value under jit", doubled_under_jit, fixed(A), "f depends on how it is run"),
    Case("twice the value under vmap", doubled_under_vmap, fixed(A), (CANNOT_TELL,), "f depends on how it is run",
         gradient=lambda x: 2 * x),
    wrong("twice the value under vmap, gradient × 2", doubled_under_vmap, fixed(A), gradient=lambda x: 4 * x),
    Case("prints on the host", with_prints(False), fixed(UP)),
    Case("prints on the host, in order", with_prints(True), fixed(UP)),
    Case("forward mode only", root_by_while, fixed([1.5, 2.0, 3.0])),
    Case("forward mode only, with a gradient", lambda x: jnp.sum(root_by_while(x)), fixed([1.5, 2.0, 3.0]),
         gradient=lambda x: 0.5 / jnp.sqrt(x)),
    wrong("forward mode only, with a wrong gradient", lambda x: jnp.sum(root_by_while(x)), fixed([1.5, 2.0, 3.0]),
          gradient=lambda x: 0.5 / x),
    Case("no autodiff", by_callback, fixed(A, A), argnums=(0, 1),
         gradient=lambda x, y: (jnp.cos(x + y), jnp.cos(x + y))),
    wrong("no autodiff, one gradient wrong", by_callback, fixed(A, A),
          gradient=lambda x, y: (jnp.cos(x + y), jnp.sin(x + y)), argnums=(0, 1)),
    Case("NumPy function that raises outside its domain", numpy_logs, lambda rng, dtype: (V**2, np.array(1e-3)),
         gradient=log_gradient(1.0), argnums=(0, 1)),
    wrong("NumPy function that raises outside its domain, one gradient ×2", numpy_logs,
          lambda rng, dtype: (V**2, np.array(1e-3)), gradient=log_gradient(2.0), argnums=(0, 1)),
    Case("squared sine by NumPy", lambda x: np.sum(np.sin(np.asarray(x)) ** 2), fixed(V),
         gradient=lambda x: jnp.sin(2 * x)),
    wrong("squared sine by NumPy, sin x in place of sin 2x", lambda x: np.sum(np.sin(np.asarray(x)) ** 2), fixed(V),
          gradient=jnp.sin),
    Case("a result of shape (1500, 1500)", lambda a, b: jnp.sin(a[:, None] * b[None, :]),
         fixed(np.linspace(0, 1, 1500), np.linspace(1, 2, 1500))),
    # Functions that run under strict dtype promotion, or without rank promotion.
    *(
        Case(f"strict promotion: {name}", f, draw, settings={"numpy_dtype_promotion": "strict"})
        for name, f, draw in (
            ("a float32 constant", lambda x: jnp.sin(x * np.float32(1.5)), lambda rng, dtype: (array(V, np.float32),)),
            ("a float32 array", lambda x: jnp.tanh(jnp.asarray(A, np.float32) @ x), lambda rng, dtype: (
                array(V, np.float32),)),
            ("a constant of x's dtype", lambda x: jnp.sin(x) * jnp.arange(3, dtype=x.dtype), fixed(V)),
            ("Python numbers", lambda x: 2 * x**2 + 0.5 * jnp.exp(-x), fixed(V)),
            ("complex times a real that is cast", lambda z, x: z * x.astype(z.dtype), fixed(Z, [0.3, 0.7])),
            ("absolute square", lambda z: jnp.sum(jnp.abs(z) ** 2), fixed(Z)),
            ("two dtypes among the leaves", lambda p: sines(p["a"]) + jnp.sum(jnp.cos(p["b"])).astype(p["a"].dtype),
             tree(lambda a: {"a": a, "b": a.astype(jnp.float16)}, fixed(V))),
            ("a scan", lambda x: lax.scan(lambda h, a: (jnp.tanh(h + a), h * a), jnp.zeros((), x.dtype), x), fixed(V)),
            ("whole numbers among the arguments", lambda x, n: x**n, together(fixed(V), whole(3))),
        )
    ),
    wrong("strict promotion: gradient ×1.01", square, fixed(V), gradient=times_gradient(square, 1.01),
          settings={"numpy_dtype_promotion": "strict"}),
    Case("no rank promotion", lambda w, x: jnp.tanh(w @ x), fixed(A, V), settings={"numpy_rank_promotion": "raise"}),
    Case("no rank promotion, complex", lambda z: jnp.outer(z, jnp.conj(z)), fixed(Z),
         settings={"numpy_rank_promotion": "raise"}),
    Case("no promotion of ranks and dtypes, second order", lambda w, x: jnp.sum(jnp.tanh(w @ x) ** 2), fixed(A, V),
         options={"order": 2}, settings={"numpy_rank_promotion": "raise", "numpy_dtype_promotion": "strict"}),
)  # fmt: skip

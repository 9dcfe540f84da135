"""Claimed derivatives: gradients, reverse modes and forward modes that a user gives, right and wrong."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jax import Array, nn
from jax.typing import DTypeLike

from jaxgd.typed import grad

from .case import Case, undecided, wrong
from .draws import Args, array, complex_normal, fixed, tree, whole
from .inputs import A, Z, sines, square
from .kinds import times_gradient
from .typed import solve

Tree = dict[str, Array]
Layers = list[tuple[Array, Array]]
TWO = tree(lambda a, b: {"a": a, "b": b}, fixed(A, 1.0))
SIGNAL = fixed([1.0, -2.0, 0.5, 3.0, 1.5, -1.0])
SEGMENTS = np.array([0, 0, 1, 1, 1, 2], np.int32)
CHAIN = 2 * np.eye(6) - np.eye(6, k=1) - np.eye(6, k=-1)


def product(x: Array, y: Array) -> Array:
    return x * y


def modulus(z: Array) -> Array:
    return jnp.sum(jnp.abs(z) ** 2)


def of_two(p: Tree) -> Array:
    return square(p["a"]) + p["b"]


def waves(p: Tree) -> Array:
    """Return Σ sin(1e30 a) + Σ c², for leaves a of size 1e-30 and c of size 1."""
    return sines(p["a"] * 1e30) + square(p["c"])


def waves_gradient(p: Tree) -> Tree:
    return {"a": 1.01e30 * jnp.cos(p["a"] * 1e30), "c": 2 * p["c"]}


def poisson(e: Array) -> Array:
    """Return ‖u‖²/2 for the solution u of (K + diag e) u = 1, where K is the stiffness of a chain of springs."""
    return square(solve(jnp.asarray(CHAIN, e.dtype) + jnp.diag(e), jnp.ones_like(e))) / 2


def poisson_gradient(e: Array) -> Array:
    """Return twice the gradient, by the adjoint method."""
    m = jnp.asarray(CHAIN, e.dtype) + jnp.diag(e)
    u = solve(m, jnp.ones_like(e))
    return -2 * solve(m.T, u) * u


def drag(a: Array, temperature: Array) -> Array:
    """Return a cost of a leaf of size 2e4 and a leaf of size 1."""
    return jnp.sum(jnp.exp(-temperature) / (1 + a / 2e4)) + square(temperature)


def drag_gradient(a: Array, temperature: Array) -> Array:
    return grad(drag)(a, temperature) * jnp.array([1, 1.05, 1], a.dtype)


def segment_products(x: Array) -> Array:
    return jnp.sum(jax.ops.segment_prod(x, SEGMENTS, 3) * jnp.arange(1, 4))


def segment_gradient(x: Array) -> Array:
    a, b, c, d, e, _ = x
    return jnp.stack([b, a, 2 * d * e, 2 * c * e, 2 * c * d, jnp.full_like(a, 3)])


def spectrum(x: Array) -> Array:
    """Return the energy of a real signal's spectrum, with weights that grow with the frequency."""
    y = jnp.fft.rfft(x)
    return jnp.sum(jnp.abs(y) ** 2 * jnp.arange(1, y.size + 1))


def spectrum_gradient(halved: bool) -> Callable[[Array], Array]:
    """Return a function that returns the gradient. It is right if the inner frequencies are halved before irfft."""

    def gradient(x: Array) -> Array:
        y = jnp.fft.rfft(x)
        g = 2 * y * jnp.arange(1, y.size + 1)
        if halved:
            g = g.at[1 : (x.size + 1) // 2].multiply(0.5)
        return jnp.fft.irfft(g, x.size) * x.size

    return gradient


def fft_along(*axes: int) -> Callable[..., tuple[Array, Array]]:
    """Return a forward mode of the Fourier transform along axis 0. It transforms the tangents along these axes."""
    return lambda primals, tangents: (jnp.fft.fft(primals[0], axis=0), jnp.fft.fftn(tangents[0], axes=axes))


def upper_solve(a: Array) -> Array:
    return square(linalg.solve_triangular(a, jnp.ones(2, a.dtype), lower=False))


def upper_solve_gradient(a: Array) -> Array:
    """Return a gradient of `upper_solve` that is nonzero in the triangle that `upper_solve` does not read."""
    x = linalg.solve_triangular(a, jnp.ones(2, a.dtype), lower=False)
    return -jnp.outer(linalg.solve_triangular(a, 2 * x, trans=1, lower=False), x)


def cumprod_by_division(x: Array) -> tuple[Array, Callable[[Array], tuple[Array]]]:
    y = jnp.cumprod(x)
    return y, lambda g: (jnp.cumsum((g * y)[::-1])[::-1] / x,)


def two_layers(p: Tree) -> Array:
    return square(jnp.tanh(p["b"] @ jnp.tanh(p["a"] @ jnp.arange(1, 4, dtype=p["a"].dtype) / 3)))


def two_layers_exchanged(p: Tree) -> Tree:
    g = grad(two_layers)(p)
    return {"a": g["b"], "b": g["a"]}


def draw_two_layers(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    return ({name: array(rng.normal(size=(3, 3)), dtype) for name in "ab"},)


SIZES = (784, 800, 400, 128, 10)


def large_network(layers: Layers, x: Array, y: Array) -> Array:
    """Return the cross-entropy of a network with a million weights."""
    for i, (w, b) in enumerate(layers):
        x = x @ w + b
        x = jnp.tanh(x) if i < len(layers) - 1 else x
    return -jnp.mean(jnp.sum(nn.log_softmax(x) * y, -1))


def draw_large_network(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    layers = [
        (array(rng.normal(size=(m, n)) / np.sqrt(m), dtype), array(np.full(n, 0.1), dtype))
        for m, n in itertools.pairwise(SIZES)
    ]
    return layers, array(rng.normal(size=(16, 784)), dtype), array(np.eye(10)[np.arange(16) % 10], dtype)


def one_of_a_million(layers: Layers, x: Array, y: Array) -> Layers:
    """Return the gradient with one element doubled, in a leaf of 320,000 elements."""
    g = grad(large_network)(layers, x, y)
    return [g[0], (g[1][0].at[123, 45].multiply(2), g[1][1]), *g[2:]]


def norm(x: Array, scale: Array) -> Array:
    return scale * (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


def transformer(p: Tree, x: Array) -> Array:
    """Return the mean square of a transformer block's results."""
    h = norm(x, p["s1"])
    q, k, v = (jnp.einsum("td,dhe->hte", h, p[name]) for name in "qkv")
    a = jnp.einsum("hte,hse->hts", q, k) / np.sqrt(q.shape[-1])
    a = jnp.where(jnp.tril(jnp.ones(a.shape[-2:], bool)), a, -jnp.inf)
    x = x + jnp.einsum("hts,hse,hed->td", nn.softmax(a), v, p["o"])
    return jnp.mean((x + nn.gelu(norm(x, p["s2"]) @ p["up"]) @ p["down"]) ** 2)


def heads_mixed(p: Tree, x: Array) -> Tree:
    """Return the gradient with the elements of one leaf in the wrong order."""
    g = grad(transformer)(p, x)
    return g | {"k": jnp.swapaxes(g["k"], 1, 2).reshape(g["k"].shape)}


def draw_transformer(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    d, h, e = 64, 4, 16
    shapes = {"q": (d, h, e), "k": (d, h, e), "v": (d, h, e), "o": (h, e, d), "up": (d, 4 * d), "down": (4 * d, d)}
    p = {name: array(rng.normal(size=shape) / 8, dtype) for name, shape in shapes.items()}
    return p | {name: array(np.ones(d), dtype) for name in ("s1", "s2")}, array(rng.normal(size=(32, d)), dtype)


CLAIMS = (
    Case("gradient with float0", lambda p: square(p["w"]), tree(lambda w, i: {"w": w, "i": i}, fixed(A), whole([0, 1])),
         gradient=jax.grad(lambda p: square(p["w"]), allow_int=True)),
    Case("gradient of a holomorphic function", lambda z: jnp.sum(z**3), fixed(Z),
         gradient=jax.grad(lambda z: jnp.sum(z**3), holomorphic=True)),
    Case("gradient of a modulus", modulus, fixed(Z), gradient=lambda z: 2 * jnp.conj(z)),
    Case("reverse mode", product, fixed(A, A + 1), vjp=functools.partial(jax.vjp, product)),
    Case("forward mode", product, fixed(A, A + 1), jvp=functools.partial(jax.jvp, product)),
    Case("gradient by NumPy", square, fixed(A), gradient=lambda x: 2 * np.asarray(x)),
    Case("precomputed gradient", square, fixed(A), gradient=lambda x: jnp.asarray(2 * A, x.dtype)),
    Case("gradient in two arguments", lambda x, y: jnp.sum(x * y), fixed(A, A + 1), gradient=lambda x, y: (y, x),
         argnums=(0, 1)),
    Case("gradient in the second argument", lambda x, y: jnp.sum(x * y), fixed(A, A + 1), gradient=lambda x, y: x,
         argnums=-1),
    wrong("gradient, sign flipped", square, fixed(A), gradient=lambda x: -2 * x),
    wrong("gradient × 1.00005", square, fixed(A), gradient=lambda x: 2.0001 * x),
    wrong("precomputed gradient × 1.0005", square, fixed(A), gradient=lambda x: jnp.asarray(2.001 * A, x.dtype)),
    wrong("gradient by NumPy × 1.5", square, fixed(A), gradient=lambda x: 3 * np.asarray(x)),
    wrong("conjugate of the gradient", modulus, fixed(Z), gradient=lambda z: 2 * z),
    wrong("reverse mode, second argument × 3", product, fixed(A, A + 1),
          vjp=lambda x, y: (x * y, lambda w: (w * y, w * x * 3))),
    wrong("forward mode without the first argument", product, fixed(A, A + 1),
          jvp=lambda p, t: (p[0] * p[1], p[0] * t[1])),
    wrong("reverse mode, value + 1", product, fixed(A, A + 1),
          vjp=functools.partial(jax.vjp, lambda x, y: x * y + 1)),
    wrong("forward mode with a tangent of another shape", product, fixed(A, A + 1),
          jvp=lambda p, t: (p[0] * p[1], t[0][0])),
    wrong("a leaf of 1e-30, gradient × 1.01", waves, tree(lambda a, c: {"a": a, "c": c}, fixed(A * 1e-30, A)),
          gradient=waves_gradient),
    wrong("gradient × 1.5 at an element of 1e-6, next to 1e6", square, fixed([1e-6, 1.0, 1e6]),
          gradient=lambda x: jnp.array([3, 2, 2], x.dtype) * x),
    undecided("a gradient at a kink", jnp.abs, fixed(0.0), gradient=jnp.sign),
    wrong("one element at a kink, another element × 2", lambda x: jnp.sum(nn.relu(x)), fixed([0.0, 1.0, -1.0]),
          gradient=lambda x: jnp.array([0, 2, 0], x.dtype)),
    # A gradient of another structure, shape or dtype.
    wrong("a list for a dict", of_two, TWO, gradient=lambda p: [2 * p["a"], 1.0]),
    wrong("a leaf is missing", of_two, TWO, gradient=lambda p: {"a": 2 * p["a"]}),
    wrong("a leaf too many", of_two, TWO, gradient=lambda p: {"a": 2 * p["a"], "b": 1.0, "c": 1.0}),
    wrong("a leaf of another shape", of_two, TWO, gradient=lambda p: {"a": 2 * p["a"].T, "b": 1.0}),
    wrong("a leaf of another dtype", of_two, TWO,
          gradient=lambda p: {"a": (2 * p["a"]).astype(jnp.bfloat16), "b": 1.0}),
    wrong("a leaf of whole numbers", of_two, TWO, gradient=lambda p: {"a": jnp.ones((2, 3), int), "b": 1.0}),
    wrong("a list for a tuple", lambda p: square(p[0]) + p[1], tree(lambda a, b: (a, b), fixed(A, 1.0)),
          gradient=lambda p: [2 * p[0], 1.0]),
    wrong("a gradient of None", square, fixed(A), gradient=lambda x: None),
    wrong("a gradient of text", square, fixed(A), gradient=lambda x: "2x"),
    # An error of 0.5% or 2%, with the user's tolerance.
    Case("0.5% off, 1% allowed", square, fixed(A), gradient=times_gradient(square, 1.005), options={"rtol": 1e-2}),
    wrong("2% off, 1% allowed", square, fixed(A), gradient=times_gradient(square, 1.02), options={"rtol": 1e-2}),
    wrong("0.5% off, 0.1% allowed", square, fixed(A), gradient=times_gradient(square, 1.005), options={"rtol": 1e-3}),
    # Claims for longer functions.
    wrong("adjoint method, gradient × 2", poisson, fixed(np.linspace(0.1, 1, 6)), gradient=poisson_gradient),
    Case("leaves of 2e4 and 1", drag, fixed([2e4, 1.5e4, 3e4], [1.0, 0.5, 2.0])),
    wrong("leaves of 2e4 and 1, one element × 1.05", drag, fixed([2e4, 1.5e4, 3e4], [1.0, 0.5, 2.0]),
          gradient=drag_gradient),
    Case("segment products", segment_products, fixed([1.5, -2.0, 3.0, 0.5, -1.0, 2.0]), gradient=segment_gradient),
    Case("segment products, one factor 0", segment_products, fixed([1.5, -2.0, 3.0, 0.0, -1.0, 2.0]),
         gradient=segment_gradient),
    wrong("segment products, one element × 1.1", segment_products, fixed([1.5, -2.0, 3.0, 0.5, -1.0, 2.0]),
          gradient=lambda x: segment_gradient(x).at[3].multiply(1.1)),
    Case("spectrum", spectrum, SIGNAL, gradient=spectrum_gradient(True)),
    wrong("spectrum, inner frequencies doubled", spectrum, SIGNAL, gradient=spectrum_gradient(False)),
    Case("fft along one axis", lambda z: jnp.fft.fft(z, axis=0), complex_normal((4, 5)), jvp=fft_along(0)),
    wrong("fft along one axis, tangent along both", lambda z: jnp.fft.fft(z, axis=0), complex_normal((4, 5)),
          jvp=fft_along(0, 1)),
    wrong("fft, reverse mode by ifft", jnp.fft.fft, complex_normal((6,)),
          vjp=lambda z: (jnp.fft.fft(z), lambda g: (jnp.fft.ifft(g),))),
    wrong("fft, reverse mode by ifft × n", jnp.fft.fft, complex_normal((6,)),
          vjp=lambda z: (jnp.fft.fft(z), lambda g: (jnp.fft.ifft(g) * z.size,))),
    wrong("solve, gradient in the unread triangle", upper_solve, fixed([[1.0, -1.0], [0.0, 2.0]]),
          gradient=upper_solve_gradient),
    wrong("running product, reverse mode divides by 0", jnp.cumprod, fixed([2.0, 0.0, 3.0, 1.0, 4.0]),
          vjp=cumprod_by_division),
    Case("running product with zeros", jnp.cumprod, fixed([2.0, 0.0, 3.0, 0.0, 4.0])),
    wrong("leaves of equal shape exchanged", two_layers, draw_two_layers, gradient=two_layers_exchanged),
    wrong("arguments of equal shape exchanged", lambda x, y: jnp.sum(jnp.sin(x) * y**2), fixed(A, A + 1),
          gradient=lambda x, y: (2 * jnp.sin(x) * y, jnp.cos(x) * y**2), argnums=(0, 1)),
    Case("a million weights", large_network, draw_large_network, argnums=0),
    wrong("a million weights, one element × 2", large_network, draw_large_network, gradient=one_of_a_million),
    Case("transformer", transformer, draw_transformer),
    wrong("transformer, heads mixed in one leaf", transformer, draw_transformer, gradient=heads_mixed),
)  # fmt: skip

"""Narrow dtypes, functions that run in float32 only, functions on the host, and noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

from .case import CANNOT_TELL, IS_WRONG, NOT_WRONG, Case, undecided, wrong
from .draws import Args, Draw, Values, array, fixed, normal
from .inputs import A, V, sines, square
from .kinds import times_gradient, with_jvp, with_vjp
from .typed import Struct

Floats = NDArray[np.floating]
BFLOAT16 = "f does not compute in float64"
W = np.array([[0.3, -0.2, 0.5], [0.1, 0.7, -0.4]])
LAYER, ONE = fixed(W, [1.0, 2.0, -0.5]), fixed([1.0, 0.3])


def in_dtype(name: str, *values: Values) -> Draw:
    """Return a draw that always gives these arguments in this dtype."""
    return lambda rng, dtype: tuple(jnp.asarray(np.asarray(value), name) for value in values)


def mixed(w: Array, x: Array) -> Array:
    """Return Σ tanh²(w x), with the product w x in bfloat16."""
    return jnp.sum(jnp.tanh((w.astype(jnp.bfloat16) @ x.astype(jnp.bfloat16)).astype(w.dtype)) ** 2)


def mixed_layers(p: list[Array], x: Array) -> Array:
    """Return the mean square of the outputs of two tanh layers, whose matrix products are in bfloat16."""
    for w in p:
        x = jnp.tanh((x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32))
    return jnp.mean(x**2)


def draw_mixed_layers(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    return [array(rng.normal(size=(8, 8)) / 3, dtype) for _ in range(2)], array(rng.normal(size=(16, 8)), dtype)


def affine(x: Array) -> Array:
    """Return Σ (1.7x + 0.3)², with 1.7x + 0.3 in bfloat16. A compiler may round once where eager mode rounds twice."""
    return square((x.astype(jnp.bfloat16) * jnp.bfloat16(1.7) + jnp.bfloat16(0.3)).astype(x.dtype))


def mixed_product(factor: float) -> Callable[..., Array]:
    """Return a product in bfloat16 with a hand-written rule. The factor multiplies the rule's cotangents."""
    return with_vjp(
        lambda w, x: (w.astype(jnp.bfloat16) @ x.astype(jnp.bfloat16)).astype(w.dtype),
        lambda w, x, g: (factor * jnp.outer(g, x), factor * w.T @ g),
    )


def low_precision_sine(factor: float) -> Callable[..., Array]:
    def backward(x: Array, g: Array) -> tuple[Array]:
        return ((factor * g * jnp.cos(x.astype(jnp.float32))).astype(x.dtype),)

    return with_vjp(lambda x: sines(x.astype(jnp.float32)), backward)


def tanh_squares(w: Array, x: Array) -> Array:
    return jnp.sum(jnp.tanh(w @ x) ** 2)


# Functions that run in float32 only.


def single_only(f: Callable[..., Array]) -> Callable[..., Array]:
    """Return f, with an error for dtypes other than float32."""

    def checked(*args: Array) -> Array:
        if any(x.dtype != jnp.float32 for x in args):
            raise TypeError(f"float32 wanted, got {[x.dtype.name for x in args]}")
        return f(*args)

    return checked


def by_rule(factor: float) -> Callable[..., Array]:
    """Return Σ sin x for float32 only, with its gradient times a factor."""
    return with_vjp(single_only(sines), lambda x, g: (factor * g * jnp.cos(x),))


def exp2_by_bits(x: Array) -> Array:
    """Return 2ˣ. Write the whole part of x into the exponent bits of a float32."""
    n = jnp.floor(x)
    scale = lax.bitcast_convert_type((n.astype(jnp.int32) + 127) << 23, jnp.float32)
    r = (x - n) * np.float32(np.log(2))
    return scale * (1 + r * (1 + r / 2 * (1 + r / 3 * (1 + r / 4 * (1 + r / 5 * (1 + r / 6))))))


def rsqrt_by_bits(x: Array) -> Array:
    """Return 1/√x by four steps of Newton's method, from a start that is computed from the bits of x."""
    y = lax.bitcast_convert_type(0x5F3759DF - (lax.bitcast_convert_type(x, jnp.int32) >> 1), jnp.float32)
    for _ in range(4):
        y = y * (1.5 - 0.5 * x * y * y)
    return y


def waves(x: Array, w: Array) -> Array:
    """Return the state after 40 steps of sines and cosines under checkpoint, with a float32 constant."""

    @jax.checkpoint
    def step(h: Array, w: Array) -> tuple[Array, None]:
        return jnp.sin(jnp.float32(1.3) * h @ w) + jnp.cos(h), None

    return lax.scan(lambda h, _: step(h, w), x, None, 40)[0]


def noisy_sum(x: Array) -> Array:
    """Return Σ (sin x + 1000) − 3000 in float32, for three elements. Rounding changes it by about 1e-4."""
    total: Array = jnp.sum(jnp.sin(x) + jnp.float32(1e3)) - jnp.float32(1e3 * 3)
    return total


# Functions on the host.


def bump(x: ArrayLike) -> Floats:
    a: Floats = np.asarray(x)
    return np.asarray((-(a + np.sin(a)) * np.exp(-(a**2.0))).astype(a.dtype))


def bump_in_float32(x: ArrayLike) -> Floats:
    return bump(np.asarray(x, np.float32))


def refuses_float64(x: Array) -> Floats:
    if x.dtype != np.float32:
        raise TypeError(f"float32 wanted, got {x.dtype}")
    return bump(x)


def external(sign: float, host: Callable[..., Floats] = bump, out: DTypeLike | None = None) -> Callable[..., Array]:
    """Return a function on the host with a hand-written forward mode, which is right if `sign` is 1."""

    def f(x: Array) -> Array:
        shape = Struct(x.shape, out or x.dtype)
        y: Array = jax.pure_callback(host, shape, x, vmap_method="expand_dims").astype(x.dtype)
        return y

    def forward(x: Array, dx: Array) -> Array:
        return jnp.exp(-(x**2)) * (2 * x**2 + 2 * x * jnp.sin(x) - sign * jnp.cos(x) - 1) * dx

    return with_jvp(f, forward)


# Derivatives that differ between runs or dtypes.


def jittering() -> Callable[..., Array]:
    """Return Σ sin x with a gradient whose rounding differs between runs, as with atomic additions."""
    rng = np.random.default_rng(0)

    def jitter(ct: ArrayLike) -> Floats:
        g: Floats = np.asarray(ct)
        return (g * (1 + np.finfo(g.dtype).eps * rng.standard_normal(g.shape))).astype(g.dtype)

    def backward(x: Array, g: Array) -> tuple[Array]:
        shape = Struct(x.shape, x.dtype)
        return (jax.pure_callback(jitter, shape, g * jnp.cos(x), vmap_method="expand_dims"),)

    return with_vjp(sines, backward)


overflowing = with_vjp(lambda x: jnp.sum(x * (x * 1e-20) * (x * 1e-20)), lambda x, g: (g * 3 * x * x * 1e-40,))
doubled_in_float32 = with_vjp(sines, lambda x, g: (g * jnp.cos(x) * (2 if x.dtype == jnp.float32 else 1),))
FLOAT32 = in_dtype("float32", A)

NARROW = (
    Case("bfloat16 product inside", mixed, LAYER, NOT_WRONG, BFLOAT16),
    wrong("bfloat16 product inside, gradient × 2", mixed, LAYER, gradient=times_gradient(mixed, 2)),
    wrong("bfloat16 product by rule, gradient × 2", lambda w, x: square(mixed_product(2.0)(w, x)), LAYER),
    Case("bfloat16 product by rule", lambda w, x: square(mixed_product(1.0)(w, x)), LAYER,
         NOT_WRONG, BFLOAT16),
    Case("bfloat16 layers", mixed_layers, draw_mixed_layers, NOT_WRONG, BFLOAT16),
    wrong("bfloat16 layers, gradient × 2", mixed_layers, draw_mixed_layers, gradient=times_gradient(mixed_layers, 2)),
    wrong("bfloat16 layers, gradient negated", mixed_layers, draw_mixed_layers,
          gradient=times_gradient(mixed_layers, -1)),
    Case("affine function in bfloat16, rounded once or twice", affine, fixed([0.3, 1.2]), NOT_WRONG, BFLOAT16),
    Case("bfloat16 sine inside", lambda x: sines(x.astype(jnp.bfloat16)), fixed(A), (CANNOT_TELL,), BFLOAT16),
    *(Case(f"sines in {name}", sines, in_dtype(name, A)) for name in ("bfloat16", "float16", "float32")),
    *(
        Case(f"layer in {name}", tanh_squares, in_dtype(name, np.full((2, 3), 1 / 3), np.arange(3.0)))
        for name in ("bfloat16", "float16")
    ),
    *(Case(f"rule in {name}", low_precision_sine(1.0), in_dtype(name, V)) for name in ("bfloat16", "float16")),
    *(
        wrong(f"rule in {name}, gradient × 1.5", low_precision_sine(1.5), in_dtype(name, V))
        for name in ("bfloat16", "float16")
    ),
    Case("results whose reciprocals overflow", lambda x: x * jnp.float16(1e-5),
         in_dtype("float16", [0.5, 1.0, 2.0])),
    Case("float32 inside", lambda x: sines(x.astype(jnp.float32)), fixed(A)),
    Case("float32 only", single_only(lambda x: jnp.sum(jnp.sin(x) ** 2)), FLOAT32),
    Case("float32 only, by rule", by_rule(1.0), FLOAT32),
    wrong("float32 only, by rule, gradient × 1.01", by_rule(1.01), FLOAT32),
    wrong("float32 only, gradient × 1.05", single_only(sines), FLOAT32, gradient=lambda x: 1.05 * jnp.cos(x)),
    wrong("float32 only, one element of the gradient zero", single_only(sines), FLOAT32,
          gradient=lambda x: jnp.cos(x).at[1, 0].set(0)),
    Case("float32 only, noise of 1e-4", single_only(noisy_sum), in_dtype("float32", V), NOT_WRONG),
    wrong("float32 only, noise of 1e-4, gradient negated", single_only(noisy_sum), in_dtype("float32", V),
          gradient=lambda x: -jnp.cos(x)),
    Case("float32 only, scan of waves under checkpoint", single_only(waves),
         lambda rng, dtype: normal((4,), (4, 4))(rng, np.float32), NOT_WRONG),
    Case("float32 only, network", single_only(tanh_squares), lambda rng, dtype: normal((5, 8), (8,))(rng, np.float32)),
    wrong("float32 only, network, gradient × 1.1", single_only(tanh_squares),
          lambda rng, dtype: normal((5, 8), (8,))(rng, np.float32), gradient=times_gradient(tanh_squares, 1.1)),
    Case("2ˣ by bits", exp2_by_bits, in_dtype("float32", [0.3, 1.7, -2.4])),
    wrong("2ˣ by bits, log 2 missing", with_vjp(exp2_by_bits, lambda x, g: (g * exp2_by_bits(x),)),
          in_dtype("float32", [0.3, 1.7, -2.4])),
    Case("1/√x by bits", with_vjp(rsqrt_by_bits, lambda x, g: (-0.5 * g * x**-1.5,)),
         in_dtype("float32", [0.3, 1.7, 2.4]), NOT_WRONG),
    wrong("1/√x by bits, factor ½ missing", with_vjp(rsqrt_by_bits, lambda x, g: (-g * x**-1.5,)),
          in_dtype("float32", [0.3, 1.7, 2.4])),
    Case("host function", external(1), ONE),
    wrong("host function, sign of one term wrong", external(-1), ONE),
    Case("host function in float32", external(1, bump_in_float32, "float32"), ONE),
    wrong("host function in float32, one term × 0.9", external(0.9, bump_in_float32, "float32"), ONE),
    Case("host function that refuses float64", external(1, refuses_float64), in_dtype("float32", [1.0, 0.3]),
         NOT_WRONG),
    wrong("host function that refuses float64, sign of one term wrong", external(-1, refuses_float64),
          in_dtype("float32", [1.0, 0.3])),
    Case("gradient with random rounding", jittering(), fixed([1.0, 2.0, 3.0, 4.0]), NOT_WRONG),
    wrong("gradient that overflows in float32 only", overflowing, in_dtype("float32", [1e20, 2e20])),
    undecided("gradient that is twice as large in float32 only", doubled_in_float32, FLOAT32,
              "far off only in the dtype of the arguments"),
    Case("square of a norm that underflows in float32", lambda x: 1 + jnp.linalg.norm(x) ** 2,
         in_dtype("float32", [1e-25, 2e-25]), (IS_WRONG, CANNOT_TELL)),
)  # fmt: skip

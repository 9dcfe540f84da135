"""Edges of domains, norms and roots at 0, equal eigenvalues, repeated indices, and saturation."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.scipy.linalg as linalg
import jax.scipy.special as special
import numpy as np
from jax import Array, lax, nn

from jaxgd.typed import vmap

from .case import CANNOT_TELL, IS_WRONG, NOT_RIGHT, NOT_WRONG, RIGHT, Case, undecided, wrong
from .draws import Draw, fixed
from .inputs import V
from .kinds import with_jvp, with_vjp
from .typed import eigh

ATOMS = fixed([[0.0, 1.0], [2.0, 3.5], [1.0, -1.0]])
TWICE = fixed([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
ZEROS, PAIR = fixed([0.0, 0.0, 0.0]), fixed([[4.0, 1.0], [1.0, 3.0]])
norm: Callable[..., Array] = jnp.linalg.norm


def safe_norm(x: Array) -> Array:
    """Return ‖x‖. `norm_by_convention` is this function with the gradient 0 at 0."""
    return jnp.sqrt(jnp.sum(x**2))


def safe_norm_tangent(x: Array, dx: Array) -> Array:
    y = safe_norm(x)
    return jnp.where(y == 0, 0, jnp.sum(x * dx) / jnp.where(y == 0, 1, y))


norm_by_convention = with_jvp(safe_norm, safe_norm_tangent)


def distances(length: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return a function of atoms that sums the distances of all ordered pairs, also of each atom from itself."""
    return lambda x: jnp.sum(vmap(vmap(length))(x[:, None] - x[None, :]))


def through_eigenvectors(eigh: Callable[[Array], tuple[Array, Array]]) -> Callable[..., Array]:
    """Return a function that sums the elements of exp a with weights. It is smooth even where eigenvalues are equal."""

    def f(a: Array) -> Array:
        w, v = eigh(a)
        return jnp.sum(((v * jnp.exp(w)) @ v.T) * jnp.array([[1, 2, 3], [2, 1, 1], [3, 1, 5]], a.dtype))

    return f


def masked_tangent(a: Array, da: Array) -> tuple[Array, Array]:
    """Return tangents of eigenvalues and eigenvectors. Omit the eigenvectors' terms for gaps below 1e-8."""
    w, v = eigh(a)
    gap = w[None, :] - w[:, None]
    near = jnp.abs(gap) < 1e-8
    m = v.T @ ((da + da.T) / 2) @ v
    return jnp.diag(m), v @ (jnp.where(near, 0, 1 / jnp.where(near, 1, gap)) * m)


masked_eigh: Callable[[Array], tuple[Array, Array]] = with_jvp(lambda a: (*eigh(a),), masked_tangent)
SCATTER = lax.ScatterDimensionNumbers((), (0,), (0,))
WINDOWS = lax.ScatterDimensionNumbers((1,), (), (0,))


def largest_scattered(*places: int) -> Callable[..., Array]:
    """Return a function that scatters maxima to these indices, clipped to the array, and returns a weighted sum."""

    def f(t: Array) -> Array:
        x, at = jnp.array([1, 3, 4], t.dtype), jnp.array(places, jnp.int32)[:, None]
        y = lax.scatter_max(x, at, jnp.stack([1 + t, 4 - t]), SCATTER, mode="clip")
        return jnp.sum(y * jnp.array([2, -1, 3], t.dtype))

    return f


def overlapping(u: Array) -> Array:
    """Multiply windows of an array by u. The windows overlap, although the call declares unique indices."""
    at = jnp.array([[2], [3], [4]], jnp.int32)
    x = jnp.arange(1, 11, dtype=u.dtype)
    return lax.scatter_mul(x, at, u, WINDOWS, mode="clip", unique_indices=True)


REPEATED = np.array([1, 1, 3], np.int32)


def saddle(p: Array) -> Array:
    """Return xy/r², and 0 at 0. This function is 0 along both axes, and jumps at 0 along every other direction."""
    r2 = jnp.sum(p**2)
    return jnp.where(r2 > 0, p[0] * p[1] / r2, 0)


def kinked_softplus(positive: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return Σ log(1 + eˣ). The sum is smooth, but both of its terms have a kink at 0."""
    return lambda x: jnp.sum(positive(x) + jnp.log1p(jnp.exp(-jnp.abs(x))))


def power_of_modulus(p: float) -> Callable[..., Array]:
    return lambda x: jnp.abs(x) ** p


def power_of_norm(p: float) -> Callable[..., Array]:
    return lambda x: norm(x) ** p


def not_a_number(x: Array, g: Array) -> tuple[Array]:
    return (g * jnp.full_like(x, jnp.nan),)


def infinite(x: Array, g: Array) -> tuple[Array]:
    return (g * jnp.full_like(x, jnp.inf),)


STEEP = "infinite slope"
AT_0: Draw = fixed([0.0, 1.0, -2.0])

EDGES = (
    # Roots and norms at 0.
    undecided("|x|^½ at 0", power_of_modulus(0.5), AT_0, STEEP),
    undecided("|x|^0.9 at 0", power_of_modulus(0.9), AT_0, STEEP),
    undecided("|x|^1 at 0", power_of_modulus(1.0), AT_0),
    Case("|x|^1.5 at 0", power_of_modulus(1.5), AT_0, NOT_WRONG),
    Case("|x|^2 at 0", power_of_modulus(2.0), AT_0),
    Case("|x|^2.5 at 0", power_of_modulus(2.5), AT_0),
    undecided("|x|^½ of a scalar at 0", power_of_modulus(0.5), fixed(0.0), STEEP),
    undecided("root of a norm at 0", power_of_norm(0.5), ZEROS, STEEP),
    # The gradient is 0, but autodiff returns NaN.
    Case("norm^1.5 at 0", power_of_norm(1.5), ZEROS, NOT_RIGHT),
    wrong("norm² at 0", power_of_norm(2.0), fixed([0.0, 0.0])),
    undecided("norm at 0", norm, ZEROS),
    undecided("1-norm, one element at 0", lambda x: norm(x, 1), AT_0),
    undecided("1-norm at 0", lambda x: norm(x, 1), ZEROS),
    undecided("largest modulus at 0", lambda x: norm(x, jnp.inf), ZEROS),
    undecided("3-norm at 0", lambda x: norm(x, 3), ZEROS),
    undecided("Frobenius norm at 0", norm, fixed(np.zeros((2, 3)))),
    undecided("distance of two equal points", lambda x, y: norm(x - y), fixed([1.0, 2.0], [1.0, 2.0])),
    # Forward mode is NaN along y too, because it multiplies the NaN slope of the norm by a tangent of 0.
    Case("norm at 0 plus a smooth leaf", lambda x, y: norm(x) + jnp.sum(jnp.sin(y)), fixed(np.zeros(3), V), NOT_RIGHT),
    undecided("norm at 0, gradient 0 by convention", norm_by_convention, ZEROS),
    Case("norm with gradient 0 at 0, away from 0", norm_by_convention, fixed([1.0, -2.0, 0.5])),
    # At x = 0, f is 0 for every a, so NaN is wrong as the derivative for a. In x, f has a kink.
    Case("norm of a·x at x = 0", lambda a, x: norm(a * x), fixed(1.3, [0.0, 0.0]), NOT_RIGHT),
    wrong("distances, also of atoms from themselves", distances(norm), ATOMS),
    Case("distances, norm with gradient 0 at 0", distances(norm_by_convention), ATOMS),
    undecided("sum of moduli, one element at 0", lambda z: jnp.sum(jnp.abs(z)), fixed([0j, 1 + 1j])),
    undecided("square root at 0", jnp.sqrt, fixed([0.0, 2.0]), "edge of the domain"),
    Case("arccos at 1", jnp.arccos, fixed(1.0), (CANNOT_TELL,)),
    Case("x log x at 0", lambda x: jnp.sum(special.xlogy(x, x)), fixed([0.0, 0.5]), (CANNOT_TELL,)),
    Case("x^p at x = 0, p = 1.5", lambda x, p: x**p, fixed(0.0, 1.5), (CANNOT_TELL,)),
    Case("arctan2 at 0", jnp.arctan2, fixed(0.0, 0.0), (CANNOT_TELL,)),
    undecided("log of −1", jnp.log, fixed([-1.0, 2.0]), "not finite here"),
    undecided("1/0", lambda x: 1 / x, fixed([0.0, 2.0]), "not finite here"),
    # Infinite and NaN gradients where f jumps and where f is smooth, and similar cases with finite gradients.
    undecided("NaN gradient at a jump", with_vjp(jnp.floor, not_a_number), fixed([2.0]), "jump"),
    undecided("infinite gradient at a jump", with_vjp(jnp.floor, infinite), fixed([2.0]), "jump"),
    undecided("xy/r² at 0, a jump except along the axes", saddle, fixed([0.0, 0.0]), "jump"),
    undecided("eigenvectors, two eigenvalues equal", lambda a: jnp.linalg.eigh(a)[1] ** 2, TWICE, cause=""),
    undecided("eigenvectors of a matrix of rank 1", lambda x: jnp.linalg.eigh(x[:, None] * x[None, :])[1] @ x,
              fixed([1.0, 2.0, 3.0]), cause=""),
    undecided("singular vectors, all singular values equal", lambda a: jnp.linalg.svd(a)[0] ** 2, fixed(2 * np.eye(3)),
              cause=""),
    undecided("masked eigenvectors, two eigenvalues equal", lambda a: masked_eigh(a)[1] ** 2, TWICE, cause=""),
    wrong("NaN gradient where f is smooth", with_vjp(jnp.sin, not_a_number), fixed(V)),
    wrong("infinite gradient where f is smooth", with_vjp(jnp.sin, infinite), fixed(V)),
    wrong("NaN from the branch not taken", lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0)), fixed(V)),
    wrong("NaN from the branch not taken, scalar", lambda x: jnp.where(x > 0, jnp.sqrt(x), 0), fixed(-1.0)),
    Case("NaN avoided in the branch not taken", lambda x: jnp.sum(
        jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)), fixed(V)),
    Case("root of relu at −10", lambda x: jnp.sqrt(nn.relu(x)), fixed(-10.0), NOT_RIGHT),
    Case("logsumexp, excluded element 100 larger", lambda x: special.logsumexp(
        x, where=jnp.array([True, False])), fixed([0.0, 100.0])),
    Case("logsumexp with a weight of 0", lambda x: special.logsumexp(jnp.zeros(3, x.dtype), b=x),
         fixed([2.0, 0.0, 5.0]), NOT_RIGHT),
    wrong("exp of a matrix by eigenvectors, two eigenvalues equal", through_eigenvectors(eigh), TWICE),
    wrong("exp of a matrix by masked eigenvectors, two eigenvalues equal", through_eigenvectors(masked_eigh), TWICE),
    # Two eigenvalues are equal. If they stay equal after rounding, the derivative is NaN; otherwise it is right.
    Case("eigenvector of a simple eigenvalue, the others equal", lambda a: jnp.linalg.eigh(a)[1][:, 2] ** 2
         * jnp.arange(1, 4, dtype=a.dtype), fixed([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]),
         (RIGHT, IS_WRONG)),
    Case("exp of a matrix by eigenvectors", through_eigenvectors(eigh),
         fixed([[1.0, 0.2, 0.1], [0.2, 1.5, 0.3], [0.1, 0.3, 2.0]])),
    Case("masked eigenvalues, squared", lambda a: jnp.sum(masked_eigh(a)[0] ** 2), TWICE),
    Case("eigenvectors of diag(2^24, 2^24 + 2, 2^24 + 4)", lambda m: jnp.sum(jnp.linalg.eigh(m)[1] ** 2 * jnp.arange(
        9, dtype=m.dtype).reshape(3, 3)), fixed(np.diag(2.0**24 + np.array([0.0, 2.0, 4.0]))), NOT_RIGHT),
    # Functions that read one triangle of a symmetric matrix. `jnp.linalg.cholesky` first makes it symmetric.
    wrong("Cholesky's upper factor, unsymmetrized", lambda a: jnp.sum(linalg.cholesky(a, lower=False)), PAIR),
    wrong("Cholesky's lower factor, unsymmetrized", lambda a: jnp.sum(linalg.cholesky(a, lower=True)), PAIR),
    Case("Cholesky's factor by jnp.linalg.cholesky", lambda a: jnp.sum(jnp.linalg.cholesky(a)), PAIR),
    Case("solve for a positive definite matrix", lambda a: linalg.solve(a, jnp.array([1, 2], a.dtype), assume_a="pos"),
         PAIR, (RIGHT, IS_WRONG)),
    # Repeated indices, and indices outside the array.
    wrong("scatter of maxima, indices clipped", largest_scattered(-3, 8), fixed(0.03125)),
    Case("scatter of maxima", largest_scattered(0, 2), fixed(0.03125)),
    undecided("scatter of maxima, a tie", largest_scattered(0, 2), fixed(0.0)),
    Case("scatter of products, windows overlap", overlapping, fixed(np.arange(1.0, 7.0).reshape(3, 2) / 3), NOT_RIGHT),
    Case("additions at repeated indices", lambda x, u: jnp.sum(jnp.sin(x.at[REPEATED].add(u))),
         fixed(np.arange(5.0), [0.5, 1.0, 2.0])),
    Case("assignments at repeated indices", lambda x, u: jnp.sum(jnp.sin(x.at[REPEATED].set(u))),
         fixed(np.arange(5.0), [0.5, 1.0, 2.0]), NOT_WRONG),
    undecided("max of three, a tie", jnp.max, fixed([1.0, 3.0, 3.0])),
    # Saturation, cancellation and special functions.
    undecided("log softmax at −60", lambda z: -nn.log_softmax(z)[0], fixed([60.0, 0.0, 0.0]), "noise above the signal"),
    undecided("a sum equal to 1", lambda x: jnp.sum(nn.softmax(x)), fixed(V), "noise above the signal"),
    # The slope of abs at 0 depends on the version of JAX. The derivative is right for a slope of 0, and wrong for 1.
    Case("softplus by maximum and abs at 0", kinked_softplus(lambda x: jnp.maximum(x, 0)), fixed([0.0, 1.0]),
         (RIGHT, IS_WRONG)),
    wrong("softplus by relu and abs at 0", kinked_softplus(nn.relu), fixed([0.0, 1.0])),
    wrong("digamma at −16.5", lax.digamma, fixed([-16.5])),
    Case("gammainc in both arguments", special.gammainc, fixed(2.3, 1.7)),
    Case("hyp1f1 at (1.5, 2.5, 0.7)", special.hyp1f1, fixed(1.5, 2.5, 0.7)),
    Case("betainc in its last argument", special.betainc, fixed(1.5, 2.5, 0.7), argnums=2),
)  # fmt: skip

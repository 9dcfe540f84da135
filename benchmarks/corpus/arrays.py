"""Cases with right derivatives: functions of arrays, linear algebra and complex functions."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
from jax import Array, lax

from .case import Case
from .draws import (
    away,
    complex_normal,
    definite,
    distinct,
    fixed,
    matrix,
    normal,
    separated,
    singular,
    together,
    tree,
    uniform,
    whole,
)


def symmetric(a: Array) -> Array:
    """Return the symmetric part of a. The derivatives of some functions are right only for symmetric matrices."""
    return (a + a.T) / 2


def cho_solve(a: Array, b: Array) -> Array:
    """Return s⁻¹b for the symmetric part s of a. Symmetrize because `cho_factor` reads only one triangle."""
    x: Array = linalg.cho_solve(linalg.cho_factor(symmetric(a)), b)
    return x


def linear_solve(a: Array, b: Array) -> Array:
    """Return s⁻¹b for the symmetric part s of a, with a solver that autodiff does not differentiate."""
    a = symmetric(a)
    solve = partial(lax.custom_linear_solve, lambda x: a @ x, symmetric=True)
    x: Array = solve(b, lambda _, b: cho_solve(a, b))
    return x


def polar_factor(a: Array) -> Array:
    u, _, v = jnp.linalg.svd(a, full_matrices=False)
    return jnp.asarray(u) @ jnp.asarray(v)


ARRAYS = (
    Case("sum", jnp.sum, normal((3, 4))),
    Case("mean", lambda x: jnp.mean(x, axis=1), normal((3, 4))),
    Case("prod", lambda x: jnp.prod(x, axis=0), away((3, 4))),
    Case("var", jnp.var, normal((7,))),
    Case("std", lambda x: jnp.std(x, axis=1), normal((3, 4))),
    Case("average", lambda x, w: jnp.average(x, weights=w), together(normal(), uniform(0.5, 2.0))),
    Case("cov", jnp.cov, normal((3, 6))),
    Case("corrcoef", jnp.corrcoef, normal((3, 6))),
    Case("median", jnp.median, distinct((7,))),
    Case("quantile", lambda x: jnp.quantile(x, 0.3), distinct((8,))),
    Case("max", jnp.max, distinct((7,))),
    Case("min", lambda x: jnp.min(x, axis=1), distinct((3, 4))),
    Case("ptp", jnp.ptp, distinct((7,))),
    Case("sort", jnp.sort, distinct((7,))),
    Case("top_k", lambda x: lax.top_k(x, 3)[0] ** 2, distinct((7,))),
    Case("cumsum", jnp.cumsum, normal((6,))),
    Case("cumprod", jnp.cumprod, away((6,))),
    Case("cummax", lambda x: lax.cummax(x), distinct((6,))),
    Case("cumlogsumexp", lambda x: lax.cumlogsumexp(x), normal((6,))),
    Case("associative scan", lambda x: lax.associative_scan(lambda a, b: a * b + a, x), normal((6,))),
    Case("diff", lambda x: jnp.diff(x) ** 2, normal((6,))),
    Case("gradient", lambda x: jnp.gradient(jnp.sin(x)), normal((6,))),
    Case("trapezoid", lambda y, x: jnp.trapezoid(y, x), normal((6,), (6,))),
    Case("take, one index twice", lambda x: jnp.take(x, jnp.array([0, 2, 2, 4])) ** 2, normal((5,))),
    Case("gather of rows", lambda x, i: jnp.sin(x[i]), together(normal((5, 2)), whole([3, 0, 3]))),
    Case("dynamic slice", lambda x, i: lax.dynamic_slice(x**2, (i,), (3,)), together(normal((6,)), whole(2))),
    Case("scatter add", lambda x, y: (x**2).at[jnp.array([0, 2, 0])].add(jnp.exp(y)), normal((5,), (3,))),
    Case("scatter set", lambda x, y: (x**2).at[jnp.array([3, 1])].set(jnp.exp(y)), normal((5,), (2,))),
    Case("scatter multiply", lambda x, y: x.at[jnp.array([3, 1])].multiply(y, unique_indices=True),
            away((5,), (2,))),
    Case("segment sum", lambda x: jax.ops.segment_sum(x**2, jnp.array([0, 1, 0, 2, 1]), 3), normal((5,))),
    Case("roll, pad, flip", lambda x: jnp.pad(jnp.roll(jnp.flip(x), 2), 2, mode="reflect") ** 2, normal((6,))),
    Case("concatenate", lambda x, y: jnp.concatenate([x, x * y, jnp.repeat(y, 2)]), normal((3,), (3,))),
    Case("einsum", lambda a, b, c: jnp.einsum("ij,jk,k->ik", a, b, c), normal((2, 3), (3, 4), (4,))),
    Case("tensordot", lambda a, b: jnp.tensordot(a, b, 2), normal((2, 3, 4), (3, 4, 2))),
    Case("outer, kron", lambda a, b: (jnp.outer(a, b), jnp.kron(a, b)), normal((3,), (2,))),
    Case("cross", jnp.cross, normal((3,), (3,))),
    Case("convolve", jnp.convolve, normal((6,), (3,))),
    Case("tril of a product", lambda a, b: jnp.tril(a @ b), normal((3, 4), (4, 3))),
    Case("norm", jnp.linalg.norm, away((5,))),
    Case("cosine similarity", lambda x, y: x @ y / jnp.sqrt(x @ x * (y @ y)), away((5,), (5,))),
    Case("polynomial in coefficients", lambda c, x: jnp.polyval(c, x), normal((4,), (5,))),
    Case("broadcasting", lambda x, y: x[:, None] * jnp.sin(y)[None, :], normal((3,), (4,))),
    Case("scalar arguments", lambda x, y: jnp.sin(x) * y, away((), ())),
    Case("no dependence on the second argument", lambda x, y: jnp.sin(x), normal((3,), (2,))),
    Case("linear", lambda x: 3 * x[::-1], normal((5,))),
    Case("constant", lambda x: jnp.ones(3, x.dtype) + 0 * jnp.sum(lax.stop_gradient(x)), normal((5,))),
)  # fmt: skip


LINEAR_ALGEBRA = (
    Case("cholesky", jnp.linalg.cholesky, definite()),
    Case("cho_solve", cho_solve, together(definite(), normal((3,)))),
    Case("solve", jnp.linalg.solve, together(matrix(), normal((3,)))),
    Case("solve_triangular", lambda a, b: linalg.solve_triangular(a, b, lower=True),
            together(matrix(), normal((3, 2)))),
    Case("inv", jnp.linalg.inv, matrix()),
    Case("det", jnp.linalg.det, matrix(4)),
    Case("slogdet", lambda a: jnp.linalg.slogdet(a)[1], matrix(4)),
    Case("eigenvalues", jnp.linalg.eigvalsh, separated(4)),
    Case("eigenvectors, squared", lambda a: [x**2 for x in jnp.linalg.eigh(a)], separated()),
    Case("projector on an eigenvector",
            lambda a: jnp.outer(jnp.linalg.eigh(a)[1][:, 0], jnp.linalg.eigh(a)[1][:, 0]), separated()),
    Case("qr", lambda a: jnp.linalg.qr(a), singular()),
    Case("singular values", lambda a: jnp.linalg.svd(a, compute_uv=False), singular()),
    Case("polar factor by svd", polar_factor, singular()),
    Case("nuclear norm", lambda a: jnp.linalg.norm(a, "nuc"), singular()),
    Case("spectral norm", lambda a: jnp.linalg.norm(a, 2), singular()),
    Case("pinv", jnp.linalg.pinv, singular()),
    Case("lstsq", lambda a, b: jnp.linalg.lstsq(a, b)[0], together(singular(), normal((4,)))),
    Case("lu", lambda a: linalg.lu(a)[1:], matrix()),
    Case("expm", linalg.expm, normal((3, 3))),
    Case("matrix power", lambda a: jnp.linalg.matrix_power(a, 5), normal((3, 3))),
    Case("an exponential and a matrix that do not commute", lambda a, b: linalg.expm(a) @ b - b @ linalg.expm(-a),
            normal((2, 2), (2, 2))),
    Case("toeplitz", lambda c: linalg.toeplitz(c) @ jnp.sin(c), normal((4,))),
    Case("custom linear solve", linear_solve, together(definite(), normal((3,)))),
    Case("Mahalanobis, log-determinant", lambda a, x: x @ jnp.linalg.solve(a, x) + jnp.linalg.slogdet(a)[1],
            together(definite(), normal((3,)))),
)  # fmt: skip


COMPLEX = (
    Case("holomorphic", lambda z: z**2 * jnp.exp(z), complex_normal((4,))),
    Case("log of complex", jnp.log, complex_normal((4,))),
    Case("not holomorphic", lambda z: jnp.conj(z) * jnp.sin(z), complex_normal((4,))),
    Case("absolute square", lambda z: jnp.sum(jnp.abs(z) ** 2), complex_normal((4,))),
    Case("angle and modulus", lambda z: (jnp.angle(z), jnp.abs(z)), fixed([1 + 2j, -0.5 + 1j, 2 - 0.3j, -1 - 1j])),
    Case("real and imaginary part", lambda z: jnp.real(z) * jnp.imag(z) ** 2, complex_normal((4,))),
    Case("complex from reals", lambda x, y: jnp.exp(lax.complex(x, y)), normal((4,), (4,))),
    Case("complex product", lambda a, b: a @ b, complex_normal((2, 3), (3, 2))),
    Case("complex and real leaves", lambda z, x: jnp.sum(jnp.abs(z * x) ** 2), together(
        complex_normal((4,)), normal((4,)))),
    Case("fft", jnp.fft.fft, complex_normal((6,))),
    Case("ifft", jnp.fft.ifft, complex_normal((6,))),
    Case("rfft", jnp.fft.rfft, normal((6,))),
    Case("irfft", jnp.fft.irfft, complex_normal((4,))),
    Case("fft in two dimensions", jnp.fft.fft2, complex_normal((3, 4))),
    Case("power spectrum", lambda x: jnp.abs(jnp.fft.rfft(x)) ** 2, normal((8,))),
    Case("complex inverse", jnp.linalg.inv, tree(lambda a, b: a + 0.3j * b, matrix(), normal((3, 3)))),
)  # fmt: skip

"""A hundred functions with right derivatives, for a test of the finished checker.

They influenced no decision about the checker.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.fft as fft
import jax.scipy.linalg as linalg
import jax.scipy.signal as signal
import jax.scipy.special as special
import jax.scipy.stats as stats
import numpy as np
from jax import lax, nn

from . import fresh_models as models
from . import fresh_rules as rules
from . import fresh_science as science
from .case import Case
from .draws import (
    Draw,
    away,
    complex_normal,
    definite,
    fixed,
    matrix,
    normal,
    scaled,
    separated,
    together,
    tree,
    uniform,
    whole,
)
from .fresh_rules import above_diagonal, bits, draw_mixed, in_dtype, labels, many_leaves
from .kinds import with_jvp, with_vjp

WHITE = functools.partial(normal, scale=0.5)
Row = tuple[str, Callable[..., object], Draw]

ROWS: tuple[Row, ...] = (
    # Losses.
    ("focal loss", models.focal, together(normal((40,)), bits(40))),
    ("dice loss", models.dice, together(normal((8, 8)), bits(8, 8))),
    ("triplet loss", models.triplet, normal((6, 4), (6, 4), (6, 4))),
    ("contrastive loss", models.contrastive, together(normal((6, 5), (6, 5)), uniform(0, 2, ()))),
    ("smoothed labels", lambda z, y: models.smoothed_cross_entropy(z, y), together(normal((9, 7)), labels(7, 9))),
    ("pinball loss", models.pinball, fixed([0.3, 1.0, -2.0, 4.0], [0.7, 0.2, 1.0, 3.0])),
    ("Gaussian loss with variance", models.gaussian_loss, normal((12,), (12,), (12,))),
    ("forward algorithm", models.forward_algorithm, normal((4,), (4, 4), (9, 4))),
    ("conditional random field", models.crf, together(normal((3, 3), (5, 3)), whole(rules.TAGS))),
    ("Sinkhorn's cost", models.sinkhorn, uniform(0.0, 2.0, (5, 7))),
    ("divergence of Gaussians", models.gaussian_kl, together(normal((4,)), above_diagonal(0.5, 2.0, 4))),
    ("variational autoencoder", models.elbo, normal((6, 3), (6, 3), (3, 8), (6, 8))),
    ("Barlow twins", models.barlow_twins, normal((12, 4), (12, 4))),
    ("mean discrepancy", models.discrepancy, normal((7, 2), (6, 2), ())),
    ("preference loss", models.preference, together(normal((15,), (15,)), uniform(0.05, 0.5, ()))),
    ("clipped ratio, away from the bounds", lambda p, old, a: -jnp.mean(jnp.minimum(
        jnp.exp(p - old) * a, jnp.clip(jnp.exp(p - old), 0.8, 1.2) * a)),
     fixed([-1.0, -0.5, -2.0, -1.4], [-1.05, -1.0, -1.4, -1.35], [1.0, -0.5, 2.0, -1.0])),
    ("Student's loss, by residuals and ν", lambda r, nu: -jnp.sum(stats.t.logpdf(r, nu)),
     together(normal((10,)), uniform(2, 9, ()))),
    # Layers.
    ("rotary attention", models.rotary_attention, normal((6, 8), (6, 8), (6, 5))),
    ("attention with a penalty for distance", models.biased_attention,
     together(normal((5, 4), (7, 4), (7, 3)), uniform(0.1, 0.5, ()))),
    ("grouped attention", models.grouped_attention, normal((4, 5, 3), (2, 6, 3), (2, 6, 3))),
    ("linear attention", models.linear_attention, normal((8, 3), (8, 3), (8, 4))),
    ("padded attention", models.padded_attention, together(normal((4, 3), (6, 3), (6, 2)), whole(4))),
    ("root-mean-square norm", models.rms_norm, normal((5, 16), (16,))),
    ("group norm", models.group_norm, normal((4, 12), (12,), (12,))),
    ("mixture of experts", models.experts, normal((5, 4), (4, 3), (3, 4, 2))),
    ("gated recurrent units", models.gru, WHITE((12, 3), (12, 4), (12,), (7, 3))),
    ("graph attention", models.graph_attention, normal((5, 3), (6,))),
    ("dilated convolution", models.dilated, normal((12, 3), (3, 3, 2))),
    ("selective scan", models.selective_scan, normal((20, 4), (20, 4))),
    ("low-rank adapter", models.low_rank, normal((4, 6), (6, 5), (6, 2), (2, 5))),
    ("lookup of embeddings", models.lookup, together(normal((50, 8)), whole(np.arange(30) * 7 % 50), normal((8, 4)))),
    ("transposed convolution", lambda x,
     k: lax.conv_transpose(x, k, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")),
     normal((2, 5, 3), (4, 3, 2))),
    ("forty leaves", rules.many_blocks, many_leaves),
    ("two thousand weights", lambda w: jnp.mean(jnp.tanh(w) ** 2) + jnp.sin(w).mean(), normal((2000,))),
    # Physics and numerical methods.
    ("gravity", science.gravity, together(normal((5, 3)), uniform(0.5, 2.0, (5,)))),
    ("leapfrog", science.leapfrog, together(normal((3,), (3,)), uniform(0.5, 2.0, ()))),
    ("heat", science.heat, together(normal((12,)), uniform(0.1, 0.4, (12,)))),
    ("Black–Scholes price", science.black_scholes, fixed(105.0, 100.0, 0.5, 0.03, 0.25)),
    ("Kepler's equation", science.kepler, uniform(0.3, 0.8, (4,), (4,))),
    ("quantum circuit", science.circuit, normal((3, 2, 2))),
    ("wave in a potential", science.split_step, together(complex_normal((16,)), normal((16,)))),
    ("Lorenz' attractor", science.lorenz, together(normal((3,), scale=5.0), fixed(28.0))),
    ("predators and prey, with checkpoints", rules.predators, uniform(0.5, 1.5, (2,), (4,))),
    ("radiation with a constant of 5.67e-8", lambda t, area: 5.67e-8 * jnp.sum(area * t**4), together(
        uniform(250, 400, (6,)), uniform(1, 3, (6,)))),
    ("Morse's potential, forces", jax.grad(lambda r: jnp.sum(4.7 * (1 - jnp.exp(-1.9 * (r - 0.74))) ** 2)),
     uniform(0.5, 2.0, (5,))),
    # Splines, filters and transforms.
    ("B-spline", science.b_spline, together(normal((8,)), fixed([0.3, 1.6, 2.2, 4.7]))),
    ("bilinear sampling", science.bilinear,
     together(normal((5, 5)), fixed([0.3, 1.6, 2.2, 3.7], [2.4, 0.6, 3.3, 1.8]))),
    ("recursive filter", science.biquad, together(normal((3,)), fixed([-0.9, 0.4]), normal((40,)))),
    ("Kalman filter", science.kalman, normal((), (), (30,))),
    ("natural spline, second derivatives", rules.spline, normal((12,))),
    ("Wiener's filter", rules.fourier_filter, normal((20,))),
    ("envelope", rules.envelope, normal((16,))),
    ("log spectrogram", rules.spectrogram, normal((48,))),
    ("cosine transform", lambda x: fft.idct(fft.dct(x, norm="ortho") ** 3, norm="ortho"), normal((10,))),
    ("correlation in two dimensions", lambda a, b: signal.correlate2d(a, b, "same"), normal((6, 6), (3, 3))),
    # Linear algebra.
    ("low-rank likelihood", science.low_rank_likelihood, normal((8, 2), (8,), (8,))),
    ("square root of a matrix", science.matrix_root, definite(4)),
    ("Cayley's rotation", science.cayley, normal((4, 4))),
    ("Rayleigh's quotient", science.rayleigh, together(normal((4,)), definite(4), definite(4))),
    ("page rank", science.page_rank, together(normal((6, 6)), fixed(0.85))),
    ("Householder's reflections", science.reflections, normal((3, 5), (5,))),
    ("forward substitution", science.substitution, together(above_diagonal(1.0, 3.0, 6), normal((6,)))),
    ("Lyapunov's equation", science.lyapunov, together(definite(3), normal((3, 3)))),
    ("conjugate gradients", rules.conjugate_gradients, together(definite(5), normal((5,)))),
    ("Gram–Schmidt process", rules.orthonormal, matrix(4)),
    ("bilinear form with a Hankel matrix", lambda c, x: x @ linalg.hankel(c) @ x, normal((6,), (6,))),
    # Probability, special functions and geometry.
    ("beta density", science.beta_density, together(uniform(0.7, 4.0, (5,), (5,)), uniform(0.1, 0.9, (5,)))),
    ("von Mises' density", science.von_mises, together(uniform(0.3, 4.0, (5,)), normal((), (5,)))),
    ("survival times", science.survival,
     together(normal(()), uniform(0.7, 2.0, ()), uniform(0.2, 3.0, (20,)), bits(20))),
    ("coupling flow", science.coupling, normal((2, 2), (2, 2), (9, 4))),
    ("mixture density", science.mixture, normal((3,), (3,), (3,), (25,))),
    ("proportional hazards", science.proportional_hazards, together(normal((4,), (30, 4)), bits(30))),
    ("Dirichlet and multinomial", lambda a, n: special.gammaln(jnp.sum(a)) - special.gammaln(jnp.sum(a + n)) + jnp.sum(
        special.gammaln(a + n) - special.gammaln(a)), together(uniform(0.5, 3.0, (6,)), fixed(np.arange(6.0)))),
    ("Gaussian copula", lambda u, r: jnp.sum((2 * r * special.ndtri(u[0]) * special.ndtri(u[1]) - r**2 * jnp.sum(
        special.ndtri(u) ** 2, 0)) / (2 - 2 * r**2)) - u.shape[1] / 2 * jnp.log1p(-(r**2)),
     together(uniform(0.1, 0.9, (2, 6)), fixed(0.4))),
    ("hyperbolic distance", science.hyperbolic, uniform(-0.4, 0.4, (4,), (4,))),
    ("quaternion", science.turned, normal((4,), (3,))),
    ("distance on the earth", science.haversine, fixed([48.1, 11.6], [35.7, 139.7])),
    ("Chebyshev's series", science.chebyshev, together(normal((6,)), uniform(-0.9, 0.9, (7,)))),
    ("integral by Gauss's rule", science.integral, uniform(0.5, 2.0, (), ())),
    ("Bessel's function by recurrence", rules.bessel_by_recurrence, uniform(0.5, 4.0, (5,))),
    ("continued fraction", rules.fraction, uniform(-1.2, 1.2)),
    # Control flow, rules and dtypes.
    ("while loop, forward mode", rules.decayed, uniform(0.5, 2.0)),
    ("branches by index", rules.branches, normal((7,))),
    ("attention by a fused rule", with_vjp(lambda q, k, v: nn.softmax(q @ k.T) @ v, rules.flash_backward),
     normal((4, 3), (6, 3), (6, 2))),
    ("equilibrium by rule", with_vjp(rules.equilibrium, rules.equilibrium_backward), normal((4, 4), (4,), scale=0.2)),
    ("linear differential equation by rule", with_vjp(rules.linear_ode, rules.linear_ode_backward),
     normal((3, 3), (3,))),
    ("reversible layer by rule", with_vjp(rules.reversible, rules.reversible_backward), normal((3, 3), (3, 3), (6,))),
    ("largest eigenvalue by rule", with_jvp(rules.top_eigenvalue, rules.top_eigenvalue_tangent), separated(4)),
    ("sparse product by rule", with_vjp(rules.sparse_product, rules.sparse_backward), normal((7,), (4,))),
    ("circular convolution by rule", with_vjp(rules.circular, rules.circular_backward), normal((11,), (11,))),
    ("robust loss by rule", lambda x: rules.robust(x, 1.5), normal((8,), scale=3.0)),
    ("linear solve, with a solver for the transpose", rules.solved, together(matrix(4), normal((4,)))),
    ("leaves of three dtypes", rules.mixed_loss, draw_mixed),
    ("softmax of bfloat16", nn.softmax, in_dtype("bfloat16", normal((6,)))),
    ("norm of float16", lambda x: models.rms_norm(x, 1), in_dtype("float16", normal((8,)))),
    ("scalars of float16", lambda x, y: jnp.exp(-x) * y, in_dtype("float16", uniform(0.5, 2.0, (), ()))),
    ("weights of 1e-15 and inputs of 1e14", lambda w, x: jnp.tanh(w @ x), together(
        normal((3, 4), scale=1e-15), normal((4,), scale=1e14))),
    ("charges of 1e-19 at distances of 1e-10", lambda q, r: 8.99e9 * q[0] * q[1] / r, together(
        scaled(fixed([1.6, -3.2]), 1e-19), scaled(uniform(1, 3, ()), 1e-10))),
    ("a badly scaled valley", lambda p: 1e4 * (p["b"] - p["a"] ** 2) ** 2 + (1 - p["a"]) ** 2 / 1e2,
     tree(lambda a, b: {"a": a, "b": b}, away((), ()))),
    ("rows in the order of their sums", lambda x: jnp.cumsum(x[jnp.argsort(x.sum(1))], 0) ** 2, normal((5, 3))),
)  # fmt: skip

FRESH_RIGHT = tuple(Case(name, f, draw, settings={"numpy_rank_promotion": "allow"}) for name, f, draw in ROWS)

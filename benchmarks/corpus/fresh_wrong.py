"""A hundred wrong derivatives for a test of the finished checker. These cases influenced no choice in the checker."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax, nn

from . import fresh_mistakes as mistakes
from . import fresh_models as models
from . import fresh_rules as rules
from . import fresh_science as science
from .case import Case, wrong
from .draws import Draw, complex_normal, definite, distinct, fixed, matrix, normal, separated, together, uniform, whole
from .fresh_mistakes import as_if, changed, stop
from .fresh_rules import above_diagonal, bits, in_dtype, labels, many_leaves
from .kinds import pulled, with_vjp

QKV = normal((4, 3), (6, 3), (6, 2))
OPTION = fixed(105.0, 100.0, 0.5, 0.03, 0.25)

ROWS: tuple[tuple[str, Callable[..., object], Draw], ...] = (
    # Losses.
    ("focal loss: modulation held fixed", mistakes.focal_fixed, together(normal((40,)), bits(40))),
    ("triplet loss: positives held fixed", lambda a, p, n: models.triplet(a, stop(p), n),
     normal((6, 4), (6, 4), (6, 4))),
    ("contrastive loss: second batch held fixed", lambda a, b, s: models.contrastive(a, stop(b), s),
     together(normal((6, 5), (6, 5)), uniform(0, 2, ()))),
    ("contrastive loss: chain factor missing for the scale", changed(
        models.contrastive, 2, lambda g, a, b, s: g * jnp.exp(-s)),
     together(normal((6, 5), (6, 5)), uniform(0.5, 2, ()))),
    ("smoothed labels: smoothing forgotten", as_if(
        models.smoothed_cross_entropy, lambda z, y: models.smoothed_cross_entropy(z, y, 0.0)),
     together(normal((9, 7)), labels(7, 9))),
    ("log cosh loss: factor 1/n missing for one argument", with_vjp(models.log_cosh, lambda p, y, g: (
        g * jnp.tanh(p - y), -g * jnp.tanh(p - y) / p.size)), normal((30,), (30,))),
    ("Poisson loss: log rate in place of the rate", changed(models.poisson_loss, 0, lambda g, z, y: (z - y) / z.size),
     together(normal((20,)), whole(np.arange(20.0) % 6))),
    ("Gaussian loss: constant term of the variance's gradient missing", changed(
        models.gaussian_loss, 1, lambda g, m, s, y: g - 0.5 / s.size), normal((12,), (12,), (12,))),
    ("conditional random field: last tag's score missing", as_if(models.crf, mistakes.untagged_end),
     together(normal((3, 3), (5, 3)), whole(rules.TAGS))),
    ("Sinkhorn's cost: gradient of one step, not five", as_if(models.sinkhorn, lambda c: models.sinkhorn(c, 1)),
     uniform(0, 2, (5, 7))),
    ("divergence of Gaussians: determinant's term missing", as_if(models.gaussian_kl, lambda m, low: models.gaussian_kl(
        m, low) + jnp.sum(jnp.log(jnp.abs(jnp.diag(low))))), together(normal((4,)), above_diagonal(0.5, 2.0, 4))),
    ("variational autoencoder: variance's term doubled", changed(
        models.elbo, 1, lambda g, m, s, w, x: g + 0.05 * (jnp.exp(s) - 1)), normal((6, 3), (6, 3), (3, 8), (6, 8))),
    ("Student's loss: digamma of ν/2 missing", changed(
        mistakes.student, 1, lambda g, r, nu: g - r.size / 2 * special.digamma(nu / 2)),
     together(normal((10,)), uniform(2, 9, ()))),
    ("Barlow twins: off-diagonal weight halved", as_if(models.barlow_twins, mistakes.barlow_half),
     normal((12, 4), (12, 4))),
    ("mean discrepancy: width held fixed", lambda x, y, s: models.discrepancy(x, y, stop(s)),
     normal((7, 2), (6, 2), ())),
    ("preference loss: chain factor β missing", as_if(
        models.preference, lambda a, b, beta: models.preference(a, b, beta) / stop(beta), 0, 1),
     together(normal((15,), (15,)), uniform(0.05, 0.5, ()))),
    ("softmax of z/t: chain factor 1/t missing", as_if(
        lambda z, t: nn.softmax(z / t), lambda z, t: stop(t) * nn.softmax(z / t), 0), together(normal((3, 5)),
         fixed(0.7))),
    ("mean square: last row of the gradient zero", changed(
        lambda x, w: jnp.mean((jnp.tanh(x) @ w) ** 2), 0, lambda g, *_: g.at[-1].set(0)), normal((7, 3), (3, 2))),
    # Layers.
    ("rotary attention: cotangent rotated the wrong way", lambda q, k: nn.softmax(
        mistakes.turned_again(q) @ mistakes.turned_again(k).T), normal((6, 8), (6, 8))),
    ("grouped attention: gradient of each group's first head only", mistakes.grouped,
     normal((4, 5, 3), (2, 6, 3), (2, 6, 3))),
    ("linear attention: normalizer held fixed", mistakes.linear_fixed, normal((8, 3), (8, 3), (8, 4))),
    ("padded attention: padding used in the backward pass", as_if(
        models.padded_attention, lambda q, k, v, n: models.padded_attention(q, k, v, 6)),
     together(normal((4, 3), (6, 3), (6, 2)), whole(4))),
    ("root-mean-square norm: another ε in the derivative", as_if(
        lambda x, gain: models.rms_norm(x, gain), lambda x, gain: models.rms_norm(x, gain, 1e-6)),
     normal((5, 16), (16,), scale=0.2)),
    ("gated layer: gate held fixed", lambda x, w, v: stop(nn.silu(x @ w)) * (x @ v), normal((3, 6), (6, 10), (6, 10))),
    ("group norm: gradient of three groups, not two", as_if(
        models.group_norm, lambda x, a, b: models.group_norm(x, a, b, 3)), normal((4, 12), (12,), (12,))),
    ("weight norm: length held fixed", lambda v, g, x: x @ (g * v / stop(jnp.sqrt(jnp.sum(v**2, 0)))),
     normal((5, 3), (3,), (4, 5))),
    ("mixture of experts: gates held fixed", lambda x, gate, w: jnp.einsum(
        "ne,nek->nk", stop(nn.softmax(x @ gate)), jnp.einsum("nd,edk->nek", x, w)), normal((5, 4), (4, 3), (3, 4, 2))),
    ("gated recurrent units: one block of the gradient transposed", changed(models.gru, 1, mistakes.block_transposed),
     normal((12, 3), (12, 4), (12,), (7, 3), scale=0.5)),
    ("graph: rule reads the senders, not the receivers", lambda h, w: jnp.tanh(
        mistakes.collected(h[models.SENDERS] @ w)), normal((5, 3), (3, 3))),
    ("dilated convolution: kernel's gradient without dilation", as_if(
        models.dilated, lambda x, k: models.dilated(x, k, 1), 1), normal((12, 3), (3, 3, 2))),
    ("recurrence: rule uses the state after each step", with_vjp(mistakes.recurrence, mistakes.recurrence_late),
     together(uniform(0.3, 0.95, (20, 3)), normal((20, 3)))),
    ("low-rank adapter: scale missing", as_if(
        models.low_rank, lambda x, w, a, b: x @ w + (x @ a) @ b, 2, 3), normal((4, 6), (6, 5), (6, 2), (2, 5))),
    ("lookup: padding gets a gradient", lambda t, w: jnp.tanh(mistakes.unmasked(t) @ w), normal((9, 4), (4, 3))),
    ("soft cap: slope at x, not at x/cap", with_vjp(models.soft_cap, lambda x, cap, g: (
        g * (1 - jnp.tanh(x) ** 2), pulled(models.soft_cap, (x, cap), g)[1])), together(normal((9,)), uniform(2, 4,
         ()))),
    ("dropout: division by 0.8 missing in the backward pass", with_vjp(
        lambda x, mask: x * mask / 0.8, lambda x, mask, g: (g * mask, g * x / 0.8)), together(normal((30,)), bits(30))),
    ("max pool: gradient goes to the first element of each window", with_vjp(mistakes.max_pool, lambda x, g: (
        jnp.zeros_like(x).reshape(-1, 3).at[:, 0].set(g).reshape(x.shape),)), distinct((12,))),
    ("layer norm: gain's gradient summed over the wrong axis", with_vjp(mistakes.layer_norm, lambda x, gain, g: (
        pulled(mistakes.layer_norm, (x, gain), g)[0], jnp.sum(g * nn.standardize(x), 1))), normal((4, 4), (4,))),
    ("fused attention: rule takes the softmax over the queries", with_vjp(
        lambda q, k, v: nn.softmax(q @ k.T) @ v, mistakes.over_queries), QKV),
    ("matrix product: cotangent's length bounded by 1", with_vjp(jnp.matmul, mistakes.bounded_cotangent),
     normal((4, 3), (3, 5), scale=2.0)),
    ("product: backward pass in bfloat16", with_vjp(jnp.matmul, mistakes.narrow_product), normal((8, 16), (16, 8))),
    ("two thousand weights: one element of the gradient × 1.05", changed(
        lambda w: jnp.sum(jnp.sin(w)), 0, lambda g, w: g.at[1234].multiply(1.05)), normal((2000,))),
    # Physics and numerical methods.
    ("gravity: force on the second body missing", lambda x, m: -jnp.sum(jnp.triu(jnp.outer(m, m) / jnp.sqrt(
        jnp.sum((x[:, None] - stop(x)) ** 2, -1) + 0.01), 1)), together(normal((5, 3)), uniform(0.5, 2.0, (5,)))),
    ("leapfrog: stiffness's gradient after one step too few", as_if(
        science.leapfrog, lambda q, p, k: science.leapfrog(q, p, k, 11), 2),
     together(normal((3,), (3,)), uniform(0.5, 2.0, ()))),
    ("heat in a rod: gradient of a ring", as_if(science.heat, mistakes.heat_free), together(
        normal((12,)), uniform(0.1, 0.4, (12,)))),
    ("Black–Scholes: √t missing in vega", changed(
        science.black_scholes, 4, lambda g, s, k, t, r, sigma: g / jnp.sqrt(t)), OPTION),
    ("Kepler's equation: wrong sign in the denominator", with_vjp(science.kepler, mistakes.kepler_backward),
     uniform(0.3, 0.8, (4,), (4,))),
    ("quantum circuit: shifts of π/4 with the factor for π/2", with_vjp(science.circuit, mistakes.shifted_circuit),
     normal((2, 2, 2))),
    ("dispersion: adjoint in place of the transpose", lambda z: jnp.abs(mistakes.dispersed(z)) ** 2,
     complex_normal((8,))),
    ("Lorenz' attractor: gradient after one step too few", as_if(science.lorenz, lambda v, r: science.lorenz(v, r, 24)),
     together(normal((3,), scale=5.0), fixed(28.0))),
    ("linear differential equation: rule uses the state after each step", with_vjp(rules.linear_ode, mistakes.ode_late),
     normal((3, 3), (3,))),
    ("equilibrium: transpose missing in the solve", with_vjp(rules.equilibrium, mistakes.equilibrium_untransposed),
     normal((4, 4), (4,), scale=0.2)),
    ("sine: difference quotient with a step of 0.3", with_vjp(
        jnp.sin, lambda x, g: (g * (jnp.sin(x + 0.3) - jnp.sin(x - 0.3)) / 0.6,)), normal((6,))),
    ("trapezoidal rule: full weight at both ends", with_vjp(
        lambda y: jnp.trapezoid(y, dx=0.1), lambda y, g: (g * jnp.full_like(y, 0.1),)), normal((25,))),
    ("while loop, forward mode: product rule's second term missing", mistakes.half_while, uniform(0.5, 2.0)),
    ("a branch with a slope × 0.97", lambda x: lax.cond(x[0] > 0, mistakes.bent_sine, jnp.cos, x), uniform(0.2, 1.3)),
    # Splines, filters and transforms.
    ("B-spline: slope of the previous interval", changed(science.b_spline, 1, lambda g, c, x: pulled(
        science.b_spline, (jnp.roll(c, 1), x), jnp.ones_like(x))[1]), together(
            normal((8,)), fixed([0.3, 1.6, 2.2, 4.7]))),
    ("bilinear sampling: cotangents of y and x exchanged", with_vjp(science.bilinear, lambda im, y, x, g: tuple(
        pulled(science.bilinear, (im, y, x), g)[i] for i in (0, 2, 1))),
     together(normal((5, 5)), fixed([0.3, 1.6, 2.2, 3.7], [2.4, 0.6, 3.3, 1.8]))),
    ("interpolation in a table: right entry without a gradient", mistakes.table_left,
     together(normal((6,)), uniform(0.1, 4.9, (7,)))),
    ("recursive filter: recursion missing for the feedback", with_vjp(science.biquad, mistakes.feedback_once),
     together(normal((3,)), fixed([-0.9, 0.4]), normal((40,)))),
    ("Kalman filter: gain held fixed", mistakes.kalman_fixed, normal((), (), (30,))),
    ("moving average: first element's path missing", lambda x, d: lax.scan(
        lambda m, x: (d * m + (1 - d) * x,) * 2, stop(x[0]), x)[1], together(normal((12,)), uniform(0.5, 0.95, ()))),
    ("spectrogram: window missing in the adjoint", lambda x: jnp.abs(jnp.fft.rfft(mistakes.framed(x))) ** 2,
     normal((32,))),
    ("smoothing: gradient of another padding", as_if(mistakes.smooth("edge"), mistakes.smooth("constant")),
     normal((20,))),
    ("circular convolution: conjugate missing", with_vjp(rules.circular, mistakes.circular_unconjugated),
     normal((11,), (11,))),
    ("complex product: factor conjugated in one cotangent", with_vjp(
        lambda z, w: z * w, lambda z, w, g: (g * w, g * jnp.conj(z))), complex_normal((4,), (4,))),
    # Linear algebra.
    ("low-rank likelihood: diagonal's determinant missing", as_if(science.low_rank_likelihood, lambda u, d, y:
        science.low_rank_likelihood(u, d, y) - jnp.sum(d) / 2), normal((8, 2), (8,), (8,))),
    ("square root of a matrix: rule for matrices that commute", with_vjp(
        science.matrix_root, lambda a, g: (0.5 * jnp.linalg.inv(science.matrix_root(a)).T @ g,)), definite(4)),
    ("Cayley's rotation: right side held fixed", lambda a: jnp.linalg.solve(
        jnp.eye(4, dtype=a.dtype) + a - a.T, stop(jnp.eye(4, dtype=a.dtype) - a + a.T)), normal((4, 4))),
    ("Rayleigh's quotient: denominator held fixed", lambda x, a, b: (x @ a @ x) / stop(x @ b @ x),
     together(normal((4,)), definite(4), definite(4))),
    ("Householder's reflections: length held fixed", mistakes.reflections_fixed, normal((3, 5), (5,))),
    ("forward substitution: diagonal without a gradient", changed(
        science.substitution, 0, lambda g, low, b: jnp.tril(g, -1)), together(above_diagonal(1.0, 3.0, 6),
         normal((6,)))),
    ("Lyapunov's equation: one of two terms missing", with_vjp(science.lyapunov, mistakes.lyapunov_half),
     together(definite(3), normal((3, 3)))),
    ("linear solve: transpose missing in the rule's solver", mistakes.untransposed, together(matrix(4), normal((4,)))),
    ("log-determinant: gradient doubled off the diagonal", with_vjp(lambda a: jnp.linalg.slogdet(a)[1], lambda a, g: (
        g * (2 * jnp.linalg.inv(a) - jnp.diag(jnp.diag(jnp.linalg.inv(a)))),)), definite(4)),
    ("spectral norm: left and right singular vectors exchanged", with_vjp(
        lambda a: jnp.linalg.norm(a, 2), mistakes.singular_vectors_exchanged), matrix(3)),
    ("largest eigenvalue: eigenvector not of length 1", with_vjp(
        rules.top_eigenvalue, mistakes.eigenvector_by_largest), separated(4)),
    # Probability, special functions and geometry.
    ("beta density: digamma of a + b missing", changed(
        lambda a, b, x: jnp.sum(science.beta_density(a, b, x)), 0, lambda g, a, b, x: g - special.digamma(a + b)),
     together(uniform(0.7, 4.0, (5,), (5,)), uniform(0.1, 0.9, (5,)))),
    ("von Mises: ratio of Bessel functions missing", changed(
        lambda k, m, x: jnp.sum(science.von_mises(k, m, x)), 0, lambda g, k, m, x: jnp.cos(x - m)),
     together(uniform(0.3, 4.0, (5,)), normal((), (5,)))),
    ("survival times: gradient as if all were observed", as_if(science.survival, lambda s, k, t, o: science.survival(
        s, k, t, jnp.ones_like(o)), 0, 1, 2), together(
            normal(()), uniform(0.7, 2.0, ()), uniform(0.2, 3.0, (20,)), bits(20))),
    ("coupling flow: determinant's term missing", as_if(science.coupling, lambda w, v, x: science.coupling(
        w, v, x) - jnp.sum(jnp.tanh(x[:, :2] @ w))), normal((2, 2), (2, 2), (9, 4))),
    ("mixture density: prior weights, not posterior weights", changed(science.mixture, 1, mistakes.mixture_prior),
     normal((3,), (3,), (3,), (25,))),
    ("proportional hazards: gradient for the reverse order of rows", as_if(
        science.proportional_hazards, mistakes.hazards_reversed), together(normal((4,), (30, 4)), bits(30))),
    ("hyperbolic distance: Riemannian gradient", changed(science.hyperbolic, 0, lambda g, x, y: (
        g * (1 - x @ x) ** 2 / 4)), uniform(-0.4, 0.4, (4,), (4,))),
    ("quaternion: length held fixed", mistakes.quaternion_fixed, normal((4,), (3,))),
    ("distance on the earth: gradient per radian, not per degree", changed(
        science.haversine, 0, lambda g, p, q: jnp.degrees(g)), fixed([48.1, 11.6], [35.7, 139.7])),
    ("Chebyshev's series: Tₖ₋₁ in place of Uₖ₋₁", changed(
        lambda c, x: jnp.sum(science.chebyshev(c, x)), 1, mistakes.chebyshev_first_kind),
     together(normal((6,)), uniform(-0.9, 0.9, (7,)))),
    ("integral by Gauss's rule: gradient of the integrand only", mistakes.integrand_only, uniform(0.5, 2.0, (), ())),
    ("robust loss: exponent not lowered", with_vjp(lambda x: rules.robust(x, 1.5), lambda x, g: (
        g * x * (2 * x**2 + 1) ** 0.75,)), normal((8,), scale=3.0)),
    ("softplus: slope 1 above 3", with_vjp(
        nn.softplus, lambda x, g: (g * jnp.where(x > 3, 1, nn.sigmoid(x)),)), fixed([-2.0, 0.4, 3.2, 1.1])),
    ("sinh x/x: series too short for small x", mistakes.sinhc, fixed([0.4, 1.5, -0.45, 2.2])),
    ("expm1: argument bounded at 5 in the backward pass", as_if(jnp.expm1, lambda x: jnp.expm1(jnp.minimum(x, 5))),
     fixed([1.0, 5.5, -2.0, 3.0])),
    ("sort: argsort, not its inverse", with_vjp(jnp.sort, lambda x, g: (g[jnp.argsort(x)],)),
     fixed([0.3, -1.2, 2.0, 0.9, 1.4])),
    ("float16: slope × 1.05", with_vjp(jnp.tanh, lambda x, g: (g * (1 - jnp.tanh(x) ** 2) * 1.05,)),
     in_dtype("float16", normal((8,)))),
    ("weights of 1e-15: one row of the gradient zero", changed(
        lambda w, x: jnp.tanh(w @ x), 0, lambda g, w, x: g.at[1].set(0)),
     together(normal((3, 4), scale=1e-15), normal((4,), scale=1e14))),
)  # fmt: skip

# Wrong derivatives that are passed to the checker. The functions themselves have no rule.
CLAIMS = (
    wrong("gradients of keys and values exchanged", mistakes.keys_and_values, mistakes.draw_heads,
          gradient=mistakes.exchanged),
    wrong("forty leaves: gradient of one bias × 1.1", mistakes.forty_loss, many_leaves, gradient=mistakes.one_bias),
    wrong("last state: start's tangent missing", mistakes.final_state, normal((3,), (2, 3), scale=0.5),
          jvp=mistakes.without_start),
    wrong("logistic regression: sum in place of the mean", lambda w, x: jnp.mean(nn.softplus(x @ w)),
          normal((4,), (9, 4)), gradient=lambda w, x: nn.sigmoid(x @ w) @ x),
    wrong("ridge regression: penalty forgotten", lambda w, x: jnp.mean((x @ w) ** 2) + 0.05 * w @ w,
          normal((4,), (9, 4)), gradient=lambda w, x: 2 * x.T @ (x @ w) / len(x)),
    wrong("cosine and sine: reverse mode without the second output", lambda x: (jnp.cos(x), jnp.sin(x)),
          normal((5,)), vjp=lambda x: ((jnp.cos(x), jnp.sin(x)), lambda g: (-jnp.sin(x) * g[0],))),
)  # fmt: skip

ALLOW = {"numpy_rank_promotion": "allow"}
FRESH_WRONG: tuple[Case, ...] = (
    *(wrong(name, f, draw, settings=ALLOW) for name, f, draw in ROWS),
    *(dataclasses.replace(case, settings=ALLOW) for case in CLAIMS),
)

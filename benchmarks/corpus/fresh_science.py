"""Functions for `fresh_right` and `fresh_wrong`: physics, filters, linear algebra, probability and geometry."""

import functools

import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import Array, lax, nn

from jaxgd.typed import fori_loop

from .typed import inv, solve

Pair = tuple[Array, Array]

# Physics and numerical methods.


def gravity(x: Array, m: Array) -> Array:
    """Return the softened gravitational energy of all pairs."""
    r2 = jnp.sum((x[:, None] - x[None]) ** 2, -1) + 0.01
    return -jnp.sum(jnp.triu(m[:, None] * m[None] / jnp.sqrt(r2), 1))


def leapfrog(q: Array, p: Array, stiffness: Array, steps: int = 12) -> Pair:
    """Return the position and momentum of an anharmonic oscillator after `steps` leapfrog steps."""

    def step(s: Pair, _: None) -> tuple[Pair, None]:
        q, p = s
        p = p - 0.05 * (stiffness * q + q**3)
        q = q + 0.1 * p
        return (q, p - 0.05 * (stiffness * q + q**3)), None

    return lax.scan(step, (q, p), None, steps)[0]


def heat(u: Array, k: Array, steps: int = 6) -> Array:
    """Return the temperature of a rod with fixed ends after explicit time steps."""

    def step(_: Array, u: Array) -> Array:
        return u.at[1:-1].add(k[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2]))

    return fori_loop(0, steps, step, u)


def black_scholes(s: Array, k: Array, t: Array, r: Array, sigma: Array) -> Array:
    d1 = (jnp.log(s / k) + (r + sigma**2 / 2) * t) / (sigma * jnp.sqrt(t))
    return s * special.ndtr(d1) - k * jnp.exp(-r * t) * special.ndtr(d1 - sigma * jnp.sqrt(t))


def kepler(mean: Array, e: Array) -> Array:
    """Return the eccentric anomaly E with E − e sin E = mean, by Newton's method."""
    return fori_loop(0, 20, lambda _, x: x - (x - e * jnp.sin(x) - mean) / (1 - e * jnp.cos(x)), mean)


def circuit(theta: Array) -> Array:
    """Return ⟨Z₀⟩ of two qubits after layers of rotations by theta (layers, 2, 2) and a controlled phase."""

    def layer(state: Array, t: Array) -> tuple[Array, None]:
        for qubit in range(2):
            c, s = jnp.cos(t[qubit] / 2), jnp.sin(t[qubit] / 2)
            y = jnp.array([[c[0], -s[0]], [s[0], c[0]]])
            x = jnp.array([[c[1] + 0j, -1j * s[1]], [-1j * s[1], c[1] + 0j]])
            state = jnp.moveaxis(jnp.tensordot(x @ y, state, ((1,), (qubit,))), 0, qubit)
        return state * jnp.array([[1, 1], [1, -1]]), None

    start = (jnp.zeros((2, 2), theta.dtype) + 0j).at[0, 0].set(1)
    p = jnp.abs(lax.scan(layer, start, theta)[0]) ** 2
    return jnp.sum(p[0]) - jnp.sum(p[1])


def split_step(psi: Array, v: Array) -> Array:
    """Return |ψ|² after eight steps in a potential. Each step multiplies ψ by phases in space and in Fourier space."""
    k2 = jnp.asarray(np.fft.fftfreq(psi.size) ** 2 * 40, v.dtype)

    def step(psi: Array, _: None) -> tuple[Array, None]:
        psi = jnp.exp(-0.1j * v) * psi
        return jnp.fft.ifft(jnp.exp(-0.05j * k2) * jnp.fft.fft(psi)), None

    return jnp.abs(lax.scan(step, psi, None, 8)[0]) ** 2


def lorenz(v: Array, rho: Array, steps: int = 25) -> Array:
    def step(v: Array, _: None) -> tuple[Array, None]:
        x, y, z = v
        return v + 0.01 * jnp.stack([10 * (y - x), x * (rho - z) - y, x * y - 8 / 3 * z]), None

    return lax.scan(step, v, None, steps)[0]


def b_spline(c: Array, x: Array) -> Array:
    """Return a uniform cubic B-spline with coefficients c at points x between 0 and len(c) − 3."""
    i = lax.stop_gradient(jnp.floor(x)).astype(jnp.int32)
    t = x - i
    basis = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
    return jnp.asarray(sum(c[i + j] * b for j, b in enumerate(basis))) / 6


def bilinear(image: Array, y: Array, x: Array) -> Array:
    i, j = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    a, b = y - i, x - j
    top = (1 - b) * image[i, j] + b * image[i, j + 1]
    return (1 - a) * top + a * ((1 - b) * image[i + 1, j] + b * image[i + 1, j + 1])


def biquad(b: Array, a: Array, x: Array) -> Array:
    """Return x filtered recursively: y = b₀x + b₁x₋₁ + b₂x₋₂ − a₁y₋₁ − a₂y₋₂."""

    def step(s: Pair, x: Array) -> tuple[Pair, Array]:
        y = b[0] * x + s[0]
        return (b[1] * x - a[0] * y + s[1], b[2] * x - a[1] * y), y

    zero = jnp.zeros((), x.dtype)
    return lax.scan(step, (zero, zero), x)[1]


def kalman(log_q: Array, log_r: Array, y: Array) -> Array:
    """Return the negative log likelihood of a local-level model, up to a constant."""
    q, r = jnp.exp(log_q), jnp.exp(log_r)

    def step(s: Pair, y: Array) -> tuple[Pair, Array]:
        m, p = s[0], s[1] + q
        f = p + r
        return (m + p / f * (y - m), p * r / f), (jnp.log(f) + (y - m) ** 2 / f) / 2

    return jnp.sum(lax.scan(step, (jnp.zeros_like(q), jnp.ones_like(q)), y)[1])


# Linear algebra.


def low_rank_likelihood(u: Array, log_d: Array, y: Array) -> Array:
    """Return the negative log density of y under N(0, D + UUᵀ), up to a constant, by Woodbury's identity."""
    d = jnp.exp(log_d)
    m = jnp.eye(u.shape[1], dtype=u.dtype) + u.T @ (u / d[:, None])
    z = u.T @ (y / d)
    square = y @ (y / d) - z @ solve(m, z)
    determinant: Array = jnp.linalg.slogdet(m)[1]
    return (square + determinant + jnp.sum(log_d)) / 2


def matrix_root(a: Array) -> Array:
    """Return the square root of a matrix by the Denman–Beavers iteration."""

    def step(_: Array, yz: Pair) -> Pair:
        y, z = yz
        return (y + inv(z)) / 2, (z + inv(y)) / 2

    return fori_loop(0, 12, step, (a, jnp.eye(len(a), dtype=a.dtype)))[0]


def cayley(a: Array) -> Array:
    """Return the rotation (1 + S)⁻¹(1 − S) for S = a − aᵀ."""
    s, one = a - a.T, jnp.eye(len(a), dtype=a.dtype)
    return solve(one + s, one - s)


def rayleigh(x: Array, a: Array, b: Array) -> Array:
    return (x @ a @ x) / (x @ b @ x)


def page_rank(w: Array, damping: Array) -> Array:
    """Return the ranks of pages after 30 steps of the power method, for link weights w."""
    p, n = nn.softmax(w, axis=0), len(w)
    return fori_loop(0, 30, lambda _, r: damping * p @ r + (1 - damping) / n, jnp.full(n, 1 / n, w.dtype))


def reflections(v: Array, x: Array) -> Array:
    """Return x after Householder's reflections along the rows of v."""
    for row in v:
        x = x - 2 * row * (row @ x) / (row @ row)
    return x


def substitution(low: Array, b: Array) -> Array:
    """Solve a lower triangular system, one row after the other."""
    return fori_loop(0, b.size, lambda i, x: x.at[i].set((b[i] - low[i] @ x) / low[i, i]), jnp.zeros_like(b))


def lyapunov(a: Array, q: Array) -> Array:
    """Return the solution x of a x + x aᵀ = q."""
    one = jnp.eye(len(a), dtype=a.dtype)
    return solve(jnp.kron(a, one) + jnp.kron(one, a), q.reshape(-1)).reshape(q.shape)


# Probability, special functions and geometry.


def beta_density(a: Array, b: Array, x: Array) -> Array:
    return (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x) - special.betaln(a, b)


def von_mises(kappa: Array, mean: Array, x: Array) -> Array:
    return kappa * (jnp.cos(x - mean) - 1) - jnp.log(2 * np.pi * special.i0e(kappa))


def survival(log_scale: Array, shape: Array, t: Array, observed: Array) -> Array:
    """Return the mean negative log likelihood of Weibull survival times, some of which are censored."""
    z = (t * jnp.exp(-log_scale)) ** shape
    return jnp.mean(z - observed * (jnp.log(shape) + shape * (jnp.log(t) - log_scale) - jnp.log(t)))


def coupling(w: Array, v: Array, x: Array) -> Array:
    """Return the log density of x, up to a constant, under a flow with one coupling layer."""
    a, b = jnp.split(x, 2, -1)
    s, t = jnp.tanh(a @ w), a @ v
    z = jnp.concatenate([a, b * jnp.exp(s) + t], -1)
    return jnp.sum(-(z**2) / 2) + jnp.sum(s)


def mixture(logits: Array, mean: Array, log_scale: Array, x: Array) -> Array:
    """Return the mean log density of x, up to a constant, under a mixture of normal distributions."""
    z = -(((x[:, None] - mean) * jnp.exp(-log_scale)) ** 2) / 2 - log_scale
    return jnp.mean(special.logsumexp(z + nn.log_softmax(logits), axis=1))


def proportional_hazards(w: Array, x: Array, event: Array) -> Array:
    """Return Cox's negative log partial likelihood per row, for rows in order of decreasing time."""
    z = x @ w
    return -jnp.sum(event * (z - lax.cumlogsumexp(z))) / len(z)


def hyperbolic(x: Array, y: Array) -> Array:
    """Return the distance of two points of the Poincaré ball."""
    return jnp.arccosh(1 + 2 * jnp.sum((x - y) ** 2) / ((1 - x @ x) * (1 - y @ y)))


def turned(q: Array, v: Array) -> Array:
    """Return v rotated by a quaternion, which need not have length 1."""
    q = q / jnp.sqrt(q @ q)
    t = 2 * jnp.cross(q[1:], v)
    return v + q[0] * t + jnp.cross(q[1:], t)


def haversine(p: Array, q: Array) -> Array:
    """Return the distance in km between two places with coordinates in degrees."""
    (a, b), (c, d) = jnp.radians(p), jnp.radians(q)
    h = jnp.sin((c - a) / 2) ** 2 + jnp.cos(a) * jnp.cos(c) * jnp.sin((d - b) / 2) ** 2
    return 2 * 6371.0 * jnp.arcsin(jnp.sqrt(h))


def chebyshev(c: Array, x: Array) -> Array:
    """Return Σ cₖTₖ(x) by Clenshaw's recurrence."""
    zero = jnp.zeros_like(x)
    b1, b2 = functools.reduce(lambda b, ck: (ck + 2 * x * b[0] - b[1], b[0]), c[:0:-1], (zero, zero))
    return c[0] + x * b1 - b2


NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)


def integral(a: Array, b: Array) -> Array:
    """Return ∫ exp(−a x²) from 0 to b by Gauss's rule."""
    x = b * (jnp.asarray(NODES, b.dtype) + 1) / 2
    return b / 2 * jnp.sum(jnp.asarray(WEIGHTS, b.dtype) * jnp.exp(-a * x**2))

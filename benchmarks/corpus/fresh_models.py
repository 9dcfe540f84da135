"""Losses and layers for the cases of `fresh_right` and `fresh_wrong`."""

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import Array, lax, nn
from jax.typing import ArrayLike

from .typed import associative_scan, segment_sum

# Losses. Labels and targets follow the predictions.


def focal(z: Array, y: Array, gamma: float = 2.0) -> Array:
    """Return the focal loss of logits z for labels y of 0 and 1."""
    p = nn.sigmoid(jnp.where(y > 0.5, z, -z))
    return -jnp.mean((1 - p) ** gamma * jnp.log(p))


def dice(z: Array, y: Array) -> Array:
    p = nn.sigmoid(z)
    return 1 - (2 * jnp.sum(p * y) + 1) / (jnp.sum(p) + jnp.sum(y) + 1)


def triplet(a: Array, p: Array, n: Array) -> Array:
    """Return the soft-margin triplet loss of anchors, positives and negatives."""
    return jnp.mean(nn.softplus(jnp.sum((a - p) ** 2, -1) - jnp.sum((a - n) ** 2, -1)))


def unit(x: Array) -> Array:
    return x / jnp.sqrt(jnp.sum(x**2, -1, keepdims=True))


def contrastive(a: Array, b: Array, log_scale: Array) -> Array:
    """Return the symmetric contrastive loss of two batches of embeddings."""
    z = jnp.exp(log_scale) * unit(a) @ unit(b).T
    return -jnp.mean(jnp.diag(nn.log_softmax(z, 0)) + jnp.diag(nn.log_softmax(z, 1))) / 2


def smoothed_cross_entropy(z: Array, labels: Array, s: float = 0.1) -> Array:
    n = z.shape[-1]
    return -jnp.mean(jnp.sum((nn.one_hot(labels, n, dtype=z.dtype) * (1 - s) + s / n) * nn.log_softmax(z), -1))


def log_cosh(p: Array, y: Array) -> Array:
    return jnp.mean(jnp.logaddexp(p - y, y - p) - np.log(2))


def pinball(p: Array, y: Array, q: float = 0.9) -> Array:
    return jnp.mean(jnp.maximum(q * (y - p), (q - 1) * (y - p)))


def poisson_loss(z: Array, y: Array) -> Array:
    return jnp.mean(jnp.exp(z) - y * z)


def gaussian_loss(mean: Array, log_variance: Array, y: Array) -> Array:
    return jnp.mean(log_variance + (y - mean) ** 2 * jnp.exp(-log_variance)) / 2


def forward_algorithm(start: Array, move: Array, emit: Array) -> Array:
    """Return a hidden Markov model's log likelihood. `start` and `move` are logits; `emit` holds log densities."""
    a = nn.log_softmax(move)

    def step(alpha: Array, e: Array) -> tuple[Array, None]:
        return special.logsumexp(alpha[:, None] + a, axis=0) + e, None

    return special.logsumexp(lax.scan(step, nn.log_softmax(start) + emit[0], emit[1:])[0])


def crf(move: Array, emit: Array, tags: Array) -> Array:
    """Return the negative log likelihood of a chain of tags, as in a conditional random field."""

    def step(alpha: Array, e: Array) -> tuple[Array, None]:
        return special.logsumexp(alpha[:, None] + move, axis=0) + e, None

    score = jnp.sum(emit[jnp.arange(len(tags)), tags]) + jnp.sum(move[tags[:-1], tags[1:]])
    return special.logsumexp(lax.scan(step, emit[0], emit[1:])[0]) - score


def sinkhorn(cost: Array, steps: int = 5) -> Array:
    """Return the transport cost after `steps` steps of Sinkhorn's algorithm, for uniform weights and ε = 0.5."""
    n, m = cost.shape

    def step(fg: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        f = -0.5 * special.logsumexp((fg[1][None] - cost) / 0.5, axis=1) - 0.5 * np.log(n)
        return (f, -0.5 * special.logsumexp((f[:, None] - cost) / 0.5, axis=0) - 0.5 * np.log(m)), None

    f, g = lax.scan(step, (jnp.zeros(n, cost.dtype), jnp.zeros(m, cost.dtype)), None, steps)[0]
    return jnp.sum(jnp.exp((f[:, None] + g[None] - cost) / 0.5) * cost)


def gaussian_kl(mean: Array, root: Array) -> Array:
    """Return the Kullback–Leibler divergence of N(mean, LLᵀ) from N(0, I), for the lower triangle L of root."""
    low = jnp.tril(root)
    return (jnp.sum(low**2) + mean @ mean - mean.size) / 2 - jnp.sum(jnp.log(jnp.abs(jnp.diag(low))))


def elbo(mean: Array, log_variance: Array, w: Array, x: Array) -> Array:
    """Return the loss of a variational autoencoder with a decoder of one sigmoid layer and fixed noise."""
    noise = np.cos(np.arange(mean.size)).reshape(mean.shape).astype(mean.dtype)
    z = mean + jnp.exp(log_variance / 2) * noise
    kl = jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1) / 2
    return jnp.mean((nn.sigmoid(z @ w) - x) ** 2) + 0.1 * kl


def barlow_twins(a: Array, b: Array) -> Array:
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    c = a.T @ b / len(a)
    off = c * (1 - jnp.eye(len(c), dtype=c.dtype))
    return jnp.sum((jnp.diag(c) - 1) ** 2) + 0.01 * jnp.sum(off**2)


def discrepancy(x: Array, y: Array, log_width: Array) -> Array:
    """Return the squared maximum mean discrepancy of two samples."""

    def k(a: Array, b: Array) -> Array:
        return jnp.mean(jnp.exp(-jnp.sum((a[:, None] - b[None]) ** 2, -1) * jnp.exp(-2 * log_width)))

    return k(x, x) + k(y, y) - 2 * k(x, y)


def preference(chosen: Array, rejected: Array, beta: Array) -> Array:
    return -jnp.mean(nn.log_sigmoid(beta * (chosen - rejected)))


# Layers.


def rotate(x: Array, sign: float = 1.0) -> Array:
    """Return x with rotary position embeddings: rotate pairs of features by angles that grow with the position."""
    n, d = x.shape
    angle = np.arange(n)[:, None] * 100.0 ** (-np.arange(d // 2) / (d // 2))
    c, s = jnp.asarray(np.cos(angle), x.dtype), jnp.asarray(sign * np.sin(angle), x.dtype)
    a, b = x[:, ::2], x[:, 1::2]
    return jnp.stack([a * c - b * s, a * s + b * c], -1).reshape(n, d)


def rotary_attention(q: Array, k: Array, v: Array) -> Array:
    return nn.softmax(rotate(q) @ rotate(k).T / np.sqrt(q.shape[-1])) @ v


def biased_attention(q: Array, k: Array, v: Array, slope: Array) -> Array:
    """Return attention with a penalty proportional to the distance of the positions."""
    distance = jnp.abs(jnp.arange(len(q))[:, None] - jnp.arange(len(k))[None]).astype(q.dtype)
    return nn.softmax(q @ k.T / np.sqrt(q.shape[-1]) - slope * distance) @ v


def grouped_attention(q: Array, k: Array, v: Array) -> Array:
    """Return attention of queries (heads, n, d). The keys and values have fewer heads."""
    k, v = (jnp.repeat(x, len(q) // len(x), axis=0) for x in (k, v))
    return nn.softmax(jnp.einsum("hqd,hkd->hqk", q, k) / np.sqrt(q.shape[-1])) @ v


def linear_attention(q: Array, k: Array, v: Array) -> Array:
    """Return causal linear attention with the features elu + 1."""
    q, k = nn.elu(q) + 1, nn.elu(k) + 1
    total = jnp.cumsum(k[:, :, None] * v[:, None, :], 0)
    return jnp.einsum("nd,nde->ne", q, total) / jnp.sum(q * jnp.cumsum(k, 0), -1, keepdims=True)


def padded_attention(q: Array, k: Array, v: Array, length: ArrayLike) -> Array:
    """Return attention with only the first `length` keys."""
    z = q @ k.T / np.sqrt(q.shape[-1])
    return nn.softmax(jnp.where(jnp.arange(len(k))[None] < length, z, -1e30)) @ v


def rms_norm(x: Array, gain: ArrayLike, eps: float = 1e-3) -> Array:
    return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + eps) * gain


def group_norm(x: Array, gain: Array, bias: Array, groups: int = 2) -> Array:
    parts = x.reshape(len(x), groups, -1)
    mean, var = parts.mean(-1, keepdims=True), parts.var(-1, keepdims=True)
    return ((parts - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape) * gain + bias


def experts(x: Array, gate: Array, w: Array) -> Array:
    """Return a mixture of experts with soft gates, for weights gate (d, e) and w (e, d, k)."""
    return jnp.einsum("ne,nek->nk", nn.softmax(x @ gate), jnp.tanh(jnp.einsum("nd,edk->nek", x, w)))


def gru(w: Array, u: Array, b: Array, x: Array) -> Array:
    """Return all states of gated recurrent units, for weights w (3h, d), u (3h, h), b (3h,)."""

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        a, c = jnp.split(w @ x + b, 3), jnp.split(u, 3)
        r, z = nn.sigmoid(a[0] + c[0] @ h), nn.sigmoid(a[1] + c[1] @ h)
        h = z * h + (1 - z) * jnp.tanh(a[2] + r * (c[2] @ h))
        return h, h

    return lax.scan(step, jnp.zeros(u.shape[1], u.dtype), x)[1]


SENDERS, RECEIVERS = np.array([0, 1, 2, 3, 4, 0, 2, 1], np.int32), np.array([1, 2, 3, 4, 0, 2, 0, 1], np.int32)


def graph_attention(h: Array, a: Array) -> Array:
    """Return features of five nodes after attention along eight edges, with a softmax for each receiver."""
    z = jnp.tanh(jnp.concatenate([h[SENDERS], h[RECEIVERS]], -1)) @ a
    e = jnp.exp(z - jax.ops.segment_max(z, RECEIVERS, 5)[RECEIVERS])
    weight = e / segment_sum(e, RECEIVERS, 5)[RECEIVERS]
    return segment_sum(weight[:, None] * h[SENDERS], RECEIVERS, 5)


def dilated(x: Array, kernel: Array, rate: int = 2) -> Array:
    """Return a dilated causal convolution of x (time, in) and kernel (taps, in, out)."""
    taps = len(kernel)
    padded = jnp.pad(x, ((rate * (taps - 1), 0), (0, 0)))
    return jnp.asarray(sum(padded[rate * i : rate * i + len(x)] @ kernel[i] for i in range(taps)))


def selective_scan(a: Array, b: Array) -> Array:
    """Return all states of the recurrence h ← σ(a) h + b."""

    def join(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    return associative_scan(join, (nn.sigmoid(a), b))[1]


def low_rank(x: Array, w: Array, down: Array, up: Array) -> Array:
    """Return a layer with a correction of rank r, scaled by 16/r."""
    return x @ w + (x @ down) @ up * (16 / down.shape[1])


def lookup(table: Array, ids: Array, w: Array) -> Array:
    return jnp.tanh(table[ids] @ w).mean(0)


def soft_cap(x: Array, cap: Array) -> Array:
    return cap * jnp.tanh(x / cap)

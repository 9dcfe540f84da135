"""Hyper-gradients: the derivative of the validation cost with respect to the strength of regularization.

`minimize` fits the weights of a polynomial for a given λ. The derivative of its solution with respect to λ follows from
the implicit function theorem, so JAX differentiates no update of the descent. A second descent, on ln λ, finds the best
λ. The picture compares the derivative with difference quotients.

Source: Bengio, Gradient-based optimization of hyperparameters, Neural Computation 12 (2000).
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxgd

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--points", type=int, default=41, help="number of values of λ")
parser.add_argument("--steps", type=int, default=20, help="number of updates of ln λ")
parser.add_argument("--picture", default="hyper-gradients.png")
args = parser.parse_args()

points = jax.random.uniform(jax.random.key(0), (60,), minval=-1)
y = jnp.sin(4 * points) + 0.4 * jax.random.normal(jax.random.key(1), points.shape)
x = jnp.cos(jnp.outer(jnp.arccos(points), jnp.arange(16)))  # the Chebyshev polynomials up to degree 15


def training_cost(w, log_l2):
    """Return the cost of the first 20 points with the term (λ/2) Σ w²."""
    return jnp.mean((x[:20] @ w - y[:20]) ** 2) / 2 + jnp.exp(log_l2) / 2 * jnp.sum(w**2)


def validation_cost(log_l2):
    """Return the cost of the other 40 points for the weights that minimize the training cost."""
    w = jaxgd.minimize(training_cost, jnp.zeros(16), jaxgd.newton(), args=(log_l2,), max_steps=50).v
    return jnp.mean((x[20:] @ w - y[20:]) ** 2) / 2


log_l2, h = jnp.linspace(-12, 2, args.points), 1e-3
evaluate = jax.jit(jax.vmap(jax.value_and_grad(validation_cost)))
costs, slopes = evaluate(log_l2)
quotients = (evaluate(log_l2 + h)[0] - evaluate(log_l2 - h)[0]) / (2 * h)
best = jaxgd.minimize(validation_cost, -10.0, jaxgd.backtracking(), max_steps=args.steps, stop=None, bounds=(-12, 2))
difference = jnp.abs(slopes - quotients).max() / jnp.abs(slopes).max()
print(f"largest error, as a fraction of the largest derivative: {difference:.1e}")
print(f"λ = {jnp.exp(best.v):.3f} after {best.steps} updates: validation cost {best.cost:.4f}")
figure, (curve, derivative) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
curve.plot(jnp.exp(log_l2), costs)
curve.plot(jnp.exp(best.v), best.cost, "o", label="found by descent on ln λ")
derivative.plot(jnp.exp(log_l2), slopes, label="implicit differentiation")
derivative.plot(jnp.exp(log_l2), quotients, "k.", markersize=4, label="difference quotients")
curve.set(xlabel="λ", ylabel="validation cost", xscale="log")
derivative.set(xlabel="λ", ylabel="derivative with respect to ln λ", xscale="log")
curve.legend(frameon=False)
derivative.legend(frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

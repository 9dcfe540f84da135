"""Check a straight-through estimator: a function with the derivative of another function.

`quantize` rounds weights to multiples of 1/4. Its derivative is 0, so descent cannot move. A straight-through estimator
rounds too, but has the derivative of the identity: `check_gradients` needs the identity as `reference`.

Source: Bengio, Léonard and Courville, arXiv 1308.3432 (2013).
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=100, help="updates")
parser.add_argument("--picture", default="straight-through.png")
args = parser.parse_args()


def quantize(w):
    """Round to the nearest multiple of 1/4."""
    return jnp.round(4 * w) / 4


def straight_through(w):
    """Round to the nearest multiple of 1/4, with the derivative of the identity."""
    return w + jax.lax.stop_gradient(quantize(w) - w)


w = jax.random.normal(jax.random.key(0), (20,))
print("without a reference:", jaxgd.check_gradients(straight_through, w).verdict)
print("with the identity:", jaxgd.check_gradients(straight_through, w, reference=lambda w: w).verdict)

x = jax.random.normal(jax.random.key(1), (200, 20))
y = x @ jax.random.normal(jax.random.key(2), (20,))


def descend(f):
    """Fit weights to y = x w, with the weights quantized by f."""
    cost, rule = lambda w: jnp.mean((x @ f(w) - y) ** 2) / 2, jaxgd.gradient_descent(0.1)
    return jaxgd.minimize(cost, jnp.zeros(20), rule, max_steps=args.steps, stop=None)


figure, (stairs, costs) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
grid = jnp.linspace(-1, 1, 801)
stairs.plot(grid, quantize(grid), label="quantize")
stairs.plot(grid, grid, ":", label="reference: the identity")
for f in (quantize, straight_through):
    solution = descend(f)
    costs.plot(solution.trajectory.step, solution.trajectory.cost, label=f.__name__.replace("_", "-"))
    print(f"{f.__name__}: C from {solution.trajectory.cost[0]:.4f} to {solution.cost:.4f}")
stairs.set(xlabel="w", ylabel="quantized weight")
costs.set(xlabel="updates", ylabel="C of the quantized weights", yscale="log")
stairs.legend(frameon=False)
costs.legend(frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

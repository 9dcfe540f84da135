"""Minimize a cost of your own with bounds, to find the decay rates in a signal.

The signal is a sum of two exponential decays and noise. The fit has one amplitude for each of 40 rates. Without bounds,
huge positive and negative amplitudes cancel each other. With the lower bound 0, only a few amplitudes are above 0, most
of them at or next to the two rates of the signal.

Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23, for least squares with bounds.
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgd

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=2000, help="the largest number of updates")
parser.add_argument("--picture", default="bounds.png")
args = parser.parse_args()

times, rates = jnp.linspace(0, 5, 200), jnp.geomspace(0.1, 10, 40)
decays = jnp.exp(-jnp.outer(times, rates))
true = jnp.zeros(40).at[jnp.array([8, 26])].set(jnp.array([1.0, 2.0]))
signal = decays @ true + 0.01 * jax.random.normal(jax.random.key(0), times.shape)


def cost(amplitudes, decays, signal):
    """Return half the sum of the squared residuals."""
    return jnp.sum((decays @ amplitudes - signal) ** 2) / 2


figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for axis, bounds in zip(axes, (None, (0.0, None)), strict=True):
    solution = jaxgd.minimize(
        cost, jnp.ones(40), jaxgd.newton(), args=(decays, signal), max_steps=args.steps, bounds=bounds
    )
    name = "no bounds" if bounds is None else "amplitudes of 0 or more"
    axis.vlines(rates, 0, solution.v, color="C0", label="fit")
    axis.plot(rates[true > 0], true[true > 0], "o", color="C1", fillstyle="none", label="truth")
    axis.set(title=name, xlabel="decay rate", xscale="log")
    print(f"{name}: {solution.outcome.reason.name}, C = {solution.cost:.4f}, largest {np.abs(solution.v).max():.3g}")
axes[0].set_ylabel("amplitude")
axes[1].legend(frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

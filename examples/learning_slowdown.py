"""A neuron that is badly wrong learns slowly with the quadratic cost, and quickly with the cross-entropy.

One sigmoid neuron learns to turn the input 1 into the output 0. At the start w = b = 2, its output is 0.98. There
σ′(z) is nearly 0, and so is the gradient of the quadratic cost. The gradient of the cross-entropy has no factor σ′(z).

Source: Nielsen, chapter 3, "The cross-entropy cost function".
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=300)
parser.add_argument("--picture", default="learning-slowdown.png")
args = parser.parse_args()

x, y = jnp.array([[1.0]]), jnp.array([[0.0]])


def output(state):
    """Return the output of the neuron, which `train` records at the start and after every epoch."""
    return jaxgd.feedforward(state.network, x)[0, 0]


figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
for axis, cost in zip(axes, (jaxgd.quadratic_cost, jaxgd.cross_entropy), strict=True):
    for w, b in ((0.6, 0.9), (2.0, 2.0)):
        neuron = (jaxgd.Layer(jnp.array([[w]]), jnp.array([b])),)
        result = jaxgd.train(
            neuron,
            (x, y),
            epochs=args.epochs,
            batch_size=None,
            eta=0.15,
            key=jax.random.key(0),
            cost=cost,
            record={"output": output},
        )
        outputs = result.history.records["output"]
        axis.plot(result.history.epoch, outputs, label=f"w = {w:g}, b = {b:g}")
        print(f"{cost.__name__:15} w = {w:g}, b = {b:g}: output {outputs[0]:.4f}, at the end {outputs[-1]:.4f}")
    axis.set(title=cost.__name__.replace("_", " "), xlabel="epoch", ylim=(0, 1))
    axis.legend(frameon=False)
axes[0].set_ylabel("output (the right one is 0)")
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

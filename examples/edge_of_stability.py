"""Draw how gradient descent on the full batch raises the sharpness to 2/η, the edge of stability.

The sharpness is λ_max, the largest eigenvalue of the Hessian of the cost. If the cost is a quadratic function of the
weights, descent is stable only for λ_max < 2/η. The picture shows λ_max / (2/η) of a sigmoid and of a tanh network, for
three η each. The outputs are the weighted inputs z, because sigmoid outputs flatten the cost as they approach 0 and 1.

Source: Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, ICLR 2021.
"""

import argparse

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="mnist", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--images", type=int, default=500, help="training images")
parser.add_argument("--steps", type=int, default=6000)
parser.add_argument("--every", type=int, default=40, help="steps between two values of the sharpness")
parser.add_argument("--picture", default="edge-of-stability.png")
args = parser.parse_args()


def identity(z):
    """Return the weighted inputs as the outputs."""
    return z


data = jaxgd.load_dataset(args.data).train
x = data.images[: args.images].reshape(-1, data.images[0].size).astype(np.float32) / 255
x, y = x - x.mean(axis=0), data.labels[: args.images]
etas = {"sigmoid": (0.2, 0.25, 0.3), "tanh": (0.07, 0.08, 0.1)}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
for axis, (activation, rates) in zip(axes, etas.items(), strict=True):
    network = jaxgd.init_network(
        jax.random.key(0), (x.shape[1], 40, 40, 10), "scaled", activation=(activation, activation, identity)
    )
    for eta in rates:
        history = jaxgd.train(
            network,
            (x, y),
            epochs=args.steps,
            batch_size=None,
            eta=eta,
            key=jax.random.key(1),
            record={"sharpness": jaxgd.TrainingSharpness(every=args.every)},
        ).history
        ratio = history.records["sharpness"][:: args.every] * eta / 2
        axis.plot(history.epoch[:: args.every], ratio, linewidth=1, label=f"η = {eta:g}")
        print(f"{activation}, η = {eta:g}: λ_max / (2/η) is {ratio[-1]:.2f} at the end, C {history.cost[-1]:.4f}")
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set(title=activation, xlabel="step", ylim=(0, 1.6))
    axis.legend(frameon=False)
axes[0].set_ylabel("λ_max / (2/η)")
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

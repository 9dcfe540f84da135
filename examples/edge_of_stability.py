"""Gradient descent on the full batch raises the sharpness to 2/η, and then stays near this edge of stability.

The sharpness is λ_max, the largest eigenvalue of the Hessian of the cost. On a quadratic cost, descent is stable for
λ_max < 2/η only. The pictures show λ_max / (2/η) of a sigmoid and of a tanh network, for three η each.

Source: Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, ICLR 2021.
"""

import argparse

import jax
import matplotlib.pyplot as plt

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="mnist", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--images", type=int, default=500, help="training images")
parser.add_argument("--steps", type=int, default=4000)
parser.add_argument("--every", type=int, default=20, help="steps between two values of the sharpness")
parser.add_argument("--picture", default="edge-of-stability.png")
args = parser.parse_args()

data = jaxgd.load_dataset(args.data).train
images, labels = data.images[: args.images], data.labels[: args.images]
images = images.reshape(len(images), -1)
etas = {"sigmoid": (10.0, 20.0, 40.0), "tanh": (0.05, 0.1, 0.2)}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
for axis, (activation, rates) in zip(axes, etas.items(), strict=True):
    network = jaxgd.init_network(jax.random.key(0), (images.shape[1], 40, 10), "scaled", activation=activation)
    for eta in rates:
        history = jaxgd.train(
            network,
            (images, labels),
            epochs=args.steps,
            batch_size=None,
            eta=eta,
            key=jax.random.key(1),
            record={"sharpness": jaxgd.TrainingSharpness(every=args.every)},
        ).history
        steps = history.epoch[:: args.every]
        ratio = history.records["sharpness"][:: args.every] * eta / 2
        axis.plot(steps, ratio, linewidth=1, label=f"η = {eta:g}")
        print(f"{activation}, η = {eta:g}: λ_max / (2/η) is {ratio[-1]:.2f} at the end, C {history.cost[-1]:.4f}")
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set(title=activation, xlabel="step", ylim=(0, 1.6))
    axis.legend(frameon=False)
axes[0].set_ylabel("λ_max / (2/η)")
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

"""A network overfits 1,000 images. L2 regularization reduces the overfitting.

Without regularization, the training cost keeps falling, but the test cost soon rises.

Source: Nielsen, chapter 3, "Overfitting and regularization": cross-entropy, η = 0.5, λ = 0.1, 400 epochs.
"""

import argparse
import dataclasses

import jax
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="mnist", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--images", type=int, default=1000, help="training images")
parser.add_argument("--epochs", type=int, default=400)
parser.add_argument("--picture", default="regularization.png")
args = parser.parse_args()

data = jaxgd.load_dataset(args.data)
images, labels = data.train.images[: args.images], data.train.labels[: args.images]
few = dataclasses.replace(data, train=jaxgd.Part(images, labels))
network = jaxgd.init_network(jax.random.key(0), (data.train.images[0].size, 30, 10))
figure, (costs, accuracies) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for l2, color in ((None, "C0"), (0.1, "C1")):
    history = jaxgd.train(
        network,
        few,
        epochs=args.epochs,
        batch_size=10,
        eta=0.5,
        key=jax.random.key(1),
        cost=jaxgd.cross_entropy,
        l2=l2,
    ).history
    name = f"λ = {l2 or 0:g}"
    costs.plot(history.epoch, history.test_cost, color=color, label=f"test, {name}")
    costs.plot(history.epoch, history.cost, color=color, linestyle=":", label=f"training with its L2 term, {name}")
    accuracies.plot(history.epoch[1:], history.test_accuracy[1:], color=color, label=name)
    lowest = int(history.test_cost.argmin())
    print(f"{name:7}: test cost lowest at epoch {lowest}, test accuracy at the end {history.test_accuracy[-1]:.2%}")
costs.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
accuracies.set(xlabel="epoch", ylabel="test accuracy")
accuracies.yaxis.set_major_formatter(PercentFormatter(1))
costs.legend(frameon=False, fontsize="small")
accuracies.legend(frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

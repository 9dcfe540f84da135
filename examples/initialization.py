"""A network learns faster if its first weights have the standard deviation 1/√in instead of 1.

Here, `in` is the number of inputs of a neuron. With many inputs and weights of standard deviation 1, a neuron has a
large weighted input z. It starts saturated, with σ′(z) near 0.

Source: Nielsen, chapter 3, "Weight initialization": cross-entropy, η = 0.1, λ = 5.
"""

import argparse

import jax
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="mnist", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--hidden", type=int, nargs="+", default=[30, 100], help="neurons in the hidden layer")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--picture", default="initialization.png")
args = parser.parse_args()

data = jaxgd.load_dataset(args.data)
inputs = data.train.images[0].size
figure, axes = plt.subplots(1, len(args.hidden), figsize=(9, 3.5), sharey=True, layout="constrained", squeeze=False)
for axis, hidden in zip(axes[0], args.hidden, strict=True):
    for scheme, deviation in (("gaussian", "1"), ("scaled", "1/√in")):
        network = jaxgd.init_network(jax.random.key(0), (inputs, hidden, 10), scheme)
        history = jaxgd.train(
            network,
            data,
            epochs=args.epochs,
            batch_size=10,
            eta=0.1,
            key=jax.random.key(1),
            cost=jaxgd.cross_entropy,
            l2=5.0,
        ).history
        axis.plot(history.epoch[1:], history.validation_accuracy[1:], label=f"weights of deviation {deviation}")
        first, last = history.validation_accuracy[1], history.validation_accuracy[-1]
        print(f"{hidden} hidden neurons, {scheme:8}: {first:.2%} after 1 epoch, {last:.2%} after {args.epochs}")
    axis.set(title=f"{hidden} hidden neurons", xlabel="epoch")
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(frameon=False)
axes[0, 0].set_ylabel("validation accuracy")
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

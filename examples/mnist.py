"""MNIST in ten lines: the book's network learns to read digits.

Source: Nielsen, chapter 1, "Implementing our network to classify digits": [784, 30, 10], mini-batches of 10, η = 3.
"""

import argparse

import jax
import matplotlib.pyplot as plt

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits", help="digits, mnist, or a folder of IDX files")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--picture", default="mnist.png")
args = parser.parse_args()

data = jaxgd.load_dataset(args.data)
network = jaxgd.init_network(jax.random.key(0), (data.train.images[0].size, 30, 10))
result = jaxgd.train(network, data, epochs=args.epochs, batch_size=10, eta=3.0, key=jax.random.key(1))
images, labels = data.test
assessment = jaxgd.assess(result.network, images, labels)
print(f"{data.name}: a network reads {assessment.accuracy:.2%} of {len(labels)} test images after {args.epochs} epochs")
figure = plt.figure(figsize=(9, 3.5), layout="constrained")
jaxgd.plot(result, figure=figure)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

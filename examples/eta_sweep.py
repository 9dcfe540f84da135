"""Train many networks at once, to find the learning rates η with which they learn.

Source: Nielsen, chapter 1, "Implementing our network to classify digits", and chapter 3, "How to choose a neural
network's hyper-parameters?".
"""

import argparse
import statistics

import matplotlib.pyplot as plt

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="mnist", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--hidden", type=int, nargs="+", default=[10, 30], help="neurons in the hidden layer")
parser.add_argument("--eta", type=float, nargs="+", default=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100])
parser.add_argument("--seeds", type=int, default=10, help="networks for each η and each number of hidden neurons")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--picture", default="eta-sweep.png")
args = parser.parse_args()

data = jaxgd.load_dataset(args.data)
sizes = [(data.train.images[0].size, hidden, 10) for hidden in args.hidden]
sweep = jaxgd.sweep(data, sizes=sizes, eta=args.eta, seeds=args.seeds, epochs=args.epochs, progress=True)
accuracies = {}
for row in sweep.last().to_pylist():
    accuracies.setdefault((row["sizes"], row["eta"]), []).append(row["validation_accuracy"])
for (network, eta), values in accuracies.items():
    print(f"{network}, η = {eta:g}: median validation accuracy {statistics.median(values):.2%}")
figure = plt.figure(figsize=(9, 4.5), layout="constrained")
jaxgd.plot(sweep, figure=figure)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

"""A random slice through the cost of a trained network hides the steep directions.

Both panels show the cost around one trained network. The left plane is spanned by two random directions, and the
right plane by the eigenvectors of the two largest eigenvalues of the Hessian. On average, the curvature in a random
direction is the mean of all eigenvalues. Most eigenvalues are close to 0.

Source: Li et al., Visualizing the loss landscape of neural nets, NeurIPS 2018.
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--images", type=int, default=1000, help="training images")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--resolution", type=int, default=41, help="points along each side of a slice")
parser.add_argument("--picture", default="landscape.png")
args = parser.parse_args()

data = jaxgd.load_dataset(args.data).train
x = data.images[: args.images].reshape(-1, data.images[0].size) / jnp.float32(data.images.max())
y = jax.nn.one_hot(data.labels[: args.images], 10)
network = jaxgd.init_network(jax.random.key(0), (x.shape[1], 30, 10), "scaled")
settings = {"epochs": args.epochs, "batch_size": 10, "eta": 1.0, "key": jax.random.key(1)}
network = jaxgd.train(network, (x, y), **settings).network

levels = jnp.geomspace(0.025, 1, 40)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharex=True, sharey=True)
for axis, directions in zip(axes, ("random", "eigenvectors"), strict=True):
    plane = jaxgd.cost_slice(
        jaxgd.network_cost,
        network,
        directions,
        args=(x, y),
        span=4.0,
        resolution=args.resolution,
        key=jax.random.key(2),
    )
    product = jaxgd.hessian_vector_product(jaxgd.network_cost, network, plane.u, args=(x, y))
    curvature = sum(jnp.vdot(u, h) for u, h in zip(jax.tree.leaves(plane.u), jax.tree.leaves(product), strict=True))
    contours = axis.contourf(plane.a, plane.b, plane.cost.T, levels=levels, norm="log", extend="both")
    axis.plot(0, 0, "w+")
    axis.set(title=f"{directions}, uᵀHu = {curvature:.2g}", xlabel="distance along u", aspect="equal")
    print(
        f"{directions:12}: curvature along u {curvature:.3g}, C from {plane.cost.min():.3f} to {plane.cost.max():.3f}"
    )
axes[0].set_ylabel("distance along w")
figure.colorbar(contours, ax=axes, label="C", ticks=(0.03, 0.1, 0.3, 1), format="%g")
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

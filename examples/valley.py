"""A ball rolls into Rosenbrock's valley: four rules from the same start.

Gradient descent falls into the valley quickly, and then creeps along its floor. At the minimum, the Hessian has the
eigenvalues 0.4 and 1002. So η must stay below 2/1002, and the floor is 2,500 times flatter than the walls. Momentum
adds up the small steps along the floor. Newton's method and L-BFGS correct for the curvature.

Source: Nielsen, chapter 1, "Learning with gradient descent"; Rosenbrock, The Computer Journal 3 (1960).
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxgd

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=30_000, help="the largest number of updates")
parser.add_argument("--picture", default="valley.png")
args = parser.parse_args()


def cost(v):
    """Rosenbrock's function, with its minimum 0 at (1, 1)."""
    return 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2


rules = {
    "gradient descent": jaxgd.gradient_descent(1e-3),
    "heavy ball": jaxgd.heavy_ball(1e-3, 0.9),
    "L-BFGS": jaxgd.wolfe(),
    "Newton": jaxgd.newton(),
}
figure, (valley, costs) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
x, y = jnp.linspace(-1.7, 1.5, 300), jnp.linspace(-0.5, 1.8, 300)
heights = jax.vmap(jax.vmap(lambda x, y: cost((x, y)), (0, None)), (None, 0))(x, y)
valley.contourf(x, y, jnp.log10(heights + 1e-2), levels=12, cmap="Greys_r", alpha=0.6)
for name, rule in rules.items():
    solution = jaxgd.minimize(
        cost, jnp.array([-1.2, 1.0]), rule, max_steps=args.steps, record=jaxgd.Record(v=True, every=1)
    )
    path = solution.trajectory
    valley.plot(path.v[:, 0], path.v[:, 1], linewidth=1, label=name)
    costs.plot(path.step + 1, path.cost, linewidth=1, label=name)
    print(f"{name:16}: {solution.steps:6} updates, {solution.evaluations:6} evaluations, C = {solution.cost:.1e}")
valley.plot(1, 1, "k*")
valley.set(xlabel="v₁", ylabel="v₂")
costs.set(xlabel="updates + 1", ylabel="C", xscale="log", yscale="log", ylim=(1e-14, 100))
costs.legend(frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

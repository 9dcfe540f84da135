"""Check a custom_vjp: a right rule, and a rule that forgets the factor 1/n of the mean.

The cross-entropy of softmax outputs has the derivative (a − y)/n with respect to the weighted inputs z. A rule without
1/n still gives a descent direction, so training with a smaller η works and hides the fault.
`check_gradients` names the fault.

Source: Nielsen, chapter 3, "Softmax".
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--examples", type=int, default=8)
parser.add_argument("--picture", default="custom-vjp.png")
args = parser.parse_args()

z = jax.random.normal(jax.random.key(0), (args.examples, 4))
y = jax.nn.one_hot(jnp.arange(args.examples) % 4, 4)


def cost(z):
    """Return the mean cross-entropy of softmax outputs."""
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(z), axis=1))


def with_rule(backward):
    """Return the cost with `backward` as its reverse-mode rule."""
    f = jax.custom_vjp(cost)
    f.defvjp(lambda z: (cost(z), jax.nn.softmax(z)), backward)
    return f


rules = {
    "right": with_rule(lambda a, g: (g * (a - y) / len(y),)),
    "without 1/n": with_rule(lambda a, g: (g * (a - y),)),
}
# Difference quotients for every element of z, for the picture only: `check_gradients` computes its own.
with jax.enable_x64(True):
    steps = 1e-5 * jnp.eye(z.size).reshape(-1, *z.shape)
    wide = z.astype(float)
    quotients = jax.vmap(lambda h: (cost(wide + h) - cost(wide - h)) / 2e-5)(steps)
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, f), marker in zip(rules.items(), "ox", strict=True):
    report = jaxgd.check_gradients(f, z)
    print(f"{name}: {report.verdict}. {report.leaves[0].pattern}")
    axis.plot(quotients, np.ravel(jax.grad(f)(z)), marker, label=f"{name}: {report.verdict}", fillstyle="none")
axis.axline((0, 0), slope=1, color="black", linewidth=0.8, linestyle=":")
axis.set(xlabel="difference quotient", ylabel="derivative by the rule")
axis.legend(frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"drawn: {args.picture}")

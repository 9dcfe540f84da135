"""The gradient checker on a GPU: with TF32, it still confirms right gradients and finds wrong ones.

The checker evaluates f in float64. TF32 rounds only float32, so it can disturb only the comparisons in the user's
dtype.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import by_hand

from jaxgd import Layer, backprop, check_gradients, init_network, network_cost, sigmoid
from jaxgd.gradcheck import run

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _every_program_is_kept():
    """Keep every compiled program, so that the tests of one function compile it once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_MOST_PROGRAMS", 10_000)
        yield


def rounded(x):
    """Set the last 13 bits of each float32 to 0, as TF32 does, also in tangents and cotangents."""

    def cut(_, x):
        if x.dtype != jnp.float32:
            return x
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFE000)
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    return jax.custom_derivatives.linear_call(cut, cut, (), x)


def product(a, b):
    """Return a product at TF32: by a GPU if JAX has one, otherwise emulated."""
    if jax.default_backend() == "gpu":
        return jnp.matmul(a, b, precision="tensorfloat32")
    return rounded(jnp.matmul(rounded(a), rounded(b)))


def cost(network, x, y):
    """Return C. Its products ask for TF32 explicitly, so no setting of JAX overrides their precision."""
    a = x
    for w, b in network:
        a = sigmoid(product(a, w.T) + b[None])
    return 0.5 * jnp.mean(jnp.sum((a - y) ** 2, axis=-1))


@functools.cache
def point():
    """Return a network, inputs and targets."""
    network = init_network(jax.random.key(0), (256, 16, 4), scheme="scaled", dtype=jnp.float32)
    rng = np.random.default_rng(0)
    return network, rng.random((32, 256)).astype(np.float32), np.eye(4, dtype=np.float32)[rng.integers(0, 4, 32)]


def spoiled(gradient):
    """Return a gradient with one row of network[0].w zeroed and network[1] 5% too large."""
    (w, b), second = gradient
    return Layer(jnp.asarray(w).at[2].set(0), b), Layer(*(1.05 * v for v in second))


def require_named(report):
    assert report.verdict == "wrong", str(report)
    leaves = {leaf.name: (leaf.verdict, leaf.pattern) for leaf in report.leaves}
    assert leaves["network[0].w"] == ("wrong", "the leaf is zero only at index 2 of axis 0")
    assert leaves["network[0].b"][0] == "right"
    for name in ("network[1].w", "network[1].b"):
        assert leaves[name] == ("wrong", "the whole leaf is 1.05 times the reference")


@pytest.mark.parametrize("f", [network_cost, cost], ids=["the default precision", "TF32"])
def test_a_right_gradient_is_confirmed_and_the_errors_of_a_wrong_one_are_named(f, require, on_gpu):
    """The checker runs backprop at the precision "highest". So its gradient is right for both f, also on a GPU."""
    report = check_gradients(f, *point(), gradient=backprop)
    assert report.verdict == "right", str(report)
    require_named(check_gradients(f, *point(), gradient=lambda *args: spoiled(backprop(*args))))
    gaps = [line for line in report.precision if "default precision" in line]
    assert len(gaps) == (1 if on_gpu else 0), report.precision
    for line in gaps:
        # See test_mathematics.py: TF32 changes a gradient of two layers by at most 8 × 2⁻¹⁰ = 8e-3.
        require("TF32's change", re.search(r"by another (\S+)$", line)[1], most=8e-3)


def test_a_gradient_computed_at_tf32_is_right_within_the_error_of_tf32(require, on_gpu):
    """The checker compares precomputed values directly with float64. The caller states their error as rtol."""
    values = jax.tree.map(np.asarray, jax.jit(jax.grad(cost))(*point()))
    exact = by_hand(*point())[2]
    for name, a, b in zip(("w¹", "b¹", "w²", "b²"), jax.tree.leaves(values), jax.tree.leaves(exact), strict=True):
        require(f"TF32's error in {name}", np.linalg.norm(a - b) / np.linalg.norm(b), most=8e-3)
    report = check_gradients(network_cost, *point(), gradient=lambda *_: values, rtol=2e-2)
    assert report.verdict == "right", str(report)
    wrong = jax.tree.map(np.asarray, spoiled(values))
    report = check_gradients(network_cost, *point(), gradient=lambda *_: wrong, rtol=2e-2)
    assert {leaf.name for leaf in report.leaves if leaf.verdict == "wrong"} == {
        "network[0].w", "network[1].w", "network[1].b",
    }, str(report)  # fmt: skip

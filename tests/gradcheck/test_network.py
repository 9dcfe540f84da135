"""The checker confirms backprop of the book's network and finds spoiled gradients, at random and trained weights."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import by_autodiff, often

from benchmarks.corpus.spoiled import SPOILED
from jaxgd import Layer, backprop, check_gradients, load_dataset, network_cost, update

SIZES = (784, 30, 10)


@functools.cache
def digits():
    """Return ten of jaxgd's digits, enlarged to MNIST's 28 × 28 pixels."""
    images, labels = (part[:10] for part in load_dataset("digits").test)
    large = np.kron(images, np.ones((3, 3)))
    x = np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(10, 784) / 255
    return x, np.eye(10)[labels]


@functools.cache
def weights(which):
    """Return the random network, or the trained one: 2,000 steps at η = 3 reduce its cost by a factor of 6,000."""
    rng = np.random.default_rng(0)
    network = tuple(
        Layer(*(rng.normal(size=size).astype(np.float32) for size in ((n_out, n_in), (n_out,))))
        for n_in, n_out in itertools.pairwise(SIZES)
    )
    if which == "random":
        return network
    x, y = (jnp.asarray(a, jnp.float32) for a in digits())

    def step(_, network):
        return update(network, jax.grad(network_cost)(network, x, y), 3.0)

    return jax.tree.map(np.asarray, jax.jit(lambda n: jax.lax.fori_loop(0, 2000, step, n))(network))


def point(which, dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (weights(which), *digits()))


@functools.cache
def claimed(name):
    spoil = SPOILED[name][0]
    return lambda network, x, y: spoil(backprop(network, x, y))


@functools.cache
def with_rule(name):
    """Return the cost with a spoiled custom rule. Autodiff uses this rule, so it gives no right gradient."""
    spoil = SPOILED[name][0]
    cost = jax.custom_vjp(lambda network, x, y: network_cost(network, x, y))

    def backward(inputs, g):
        return *jax.tree.map(lambda a: g * a, (spoil(backprop(*inputs)),)), None, None

    cost.defvjp(lambda network, x, y: (network_cost(network, x, y), (network, x, y)), backward)
    return cost


def require_caught(report, name):
    assert report.verdict == "wrong", str(report)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "wrong"] == [
        f"network{leaf}" for leaf in SPOILED[name][1]
    ]
    # Each spoiled leaf lists wrong elements.
    assert all(leaf.worst for leaf in report.leaves if leaf.verdict == "wrong")


EVERYWHERE = [(which, dtype) for which in ("random", "trained") for dtype in ("float32", "float64")]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_rule_is_caught_at_all_weights_and_dtypes(name, which, dtype):
    """Autodiff uses the spoiled rule, so no right gradient is known.

    At trained weights in float32, jax.test_util.check_grads finds none of the 13 faults.
    """
    with jax.enable_x64(dtype == "float64"):
        require_caught(check_gradients(with_rule(name), *point(which, dtype), argnums=0), name)


@pytest.mark.slow
@pytest.mark.parametrize(("which", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_claim_is_caught_at_all_weights_and_dtypes(name, which, dtype):
    with jax.enable_x64(dtype == "float64"):
        require_caught(check_gradients(network_cost, *point(which, dtype), gradient=claimed(name)), name)


@jax.jit
def cost_with_mask(network, x, y, mask):
    """Return the cost, which ignores the mask. The claimed gradient below uses the mask."""
    return network_cost(network, x, y)


@jax.jit
def masked(network, x, y, mask):
    first, *others = backprop(network, x, y)
    return first._replace(w=first.w * mask), *others


def check_masked(index, which, dtype):
    """Check backprop. If an index is given, this element of the gradient by w¹ is multiplied by 1.2."""
    mask = np.ones((SIZES[1], SIZES[0]), dtype)
    if index is not None:
        mask[index] = 1.2
    return check_gradients(cost_with_mask, *point(which, dtype), jnp.asarray(mask), gradient=masked)


@pytest.mark.parametrize("where", often(EVERYWHERE, [("trained", "float32")]), ids="-".join)
def test_backprop_is_right_within_200_evaluations(where):
    which, dtype = where
    with jax.enable_x64(dtype == "float64"):
        report = check_masked(None, which, dtype)
    assert report.verdict == "right", str(report)
    assert report.evaluations <= 200
    assert {check.name for leaf in report.leaves for check in leaf.checks} == {
        "gradient = autodiff",
        "gradient = quotient",
        "autodiff = quotient",
        "forward = reverse",
    }
    # The bound also holds at trained weights, whose gradient is thousands of times smaller.
    assert all(check.error < 1e-7 for leaf in report.leaves for check in leaf.checks)
    assert all(leaf.slope == pytest.approx(2, abs=0.2) for leaf in report.leaves)


def one_element(index, factor=1.2):
    def gradient(network, x, y):
        first, *others = backprop(network, x, y)
        return first._replace(w=first.w.at[index].multiply(factor)), *others

    return gradient


@functools.cache
def order():
    """Return the shape of the gradient by w¹ at trained weights, and the indices of nonzero elements, largest first."""
    with jax.enable_x64(True):
        g = np.abs(np.asarray(by_autodiff(*point("trained", "float64"))[0].w))
    return g.shape, np.argsort(-g, axis=None)[: np.count_nonzero(g)]


def element_of(rank):
    """Return the index of the element that is smaller than a fraction `rank` of the nonzero elements."""
    shape, largest_first = order()
    return tuple(int(i) for i in np.unravel_index(largest_first[int(rank * (len(largest_first) - 1))], shape))


@pytest.mark.parametrize("rank", often([0, 0.1, 0.5, 0.9], [0, 0.9]), ids=["largest", "upper", "median", "lower"])
def test_one_element_that_is_wrong_by_a_fifth_is_named(rank):
    """The leaf has 23,520 elements. Each is compared with the right gradient, relative to its own size."""
    index = element_of(rank)
    report = check_masked(index, "trained", "float32")
    leaf = report.leaf("network[0].w")
    assert leaf.verdict == "wrong"
    assert leaf.pattern == f"one element is wrong, [{index[0]}, {index[1]}]"
    assert leaf.worst[0].index == index
    assert leaf.worst[0].ratio == pytest.approx(1.2)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 0.1], ids=["largest", "upper"])
def test_one_wrong_element_of_a_rule_is_named(rank):
    """No right gradient is known. Difference quotients over blocks find the element among 23,520."""
    index = element_of(rank)
    gradient = one_element(index)
    cost = jax.custom_vjp(lambda network, x, y: network_cost(network, x, y))
    cost.defvjp(
        lambda network, x, y: (network_cost(network, x, y), (network, x, y)),
        lambda inputs, g: (jax.tree.map(lambda a: g * a, gradient(*inputs)), None, None),
    )
    report = check_gradients(cost, *point("trained", "float32"), argnums=0)
    leaf = report.leaf("network[0].w")
    assert leaf.worst[0].index == index
    assert leaf.worst[0].ratio == pytest.approx(1.2, rel=1e-3)

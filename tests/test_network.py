"""feedforward, the random start, and the checks of a network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import assert_leaves_close, exact_sigmoid, example

from jaxgd.errors import DtypeError, JaxgdError, RangeError, ShapeError
from jaxgd.network import (
    Layer,
    _threefry_at_offset,
    feedforward,
    init_network,
    network_sizes,
    require_memory,
    weighted_input,
)

KEY = jax.random.key(0)


def test_feedforward_equals_a_calculation_by_hand(x64):
    network = (
        Layer(jnp.array([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]]), jnp.array([0.0, -1.0, 0.5])),
        Layer(jnp.array([[1.0, 2.0, -1.0]]), jnp.array([0.25])),
    )
    x = np.array([0.3, -0.7])
    hidden = [exact_sigmoid(z)[0] for z in (0.3 + 1.4, 0.15 - 1.0, -2.1 + 0.5)]
    want = exact_sigmoid(hidden[0] + 2 * hidden[1] - hidden[2] + 0.25)[0]
    np.testing.assert_allclose(feedforward(network, jnp.asarray(x)), [want], rtol=1e-14)
    np.testing.assert_allclose(weighted_input(network[0], jnp.asarray(x)), [1.7, -0.85, -1.6], rtol=1e-14)


def test_each_index_of_the_leading_axes_is_an_example(seed, x64):
    network, x, _ = example((3, 4, 2), seed, (2, 5))
    a = feedforward(network, x)
    assert a.shape == (2, 5, 2)
    for i in range(2):
        for j in range(5):
            np.testing.assert_allclose(
                np.asarray(a)[i, j], feedforward(network, jnp.asarray(np.asarray(x)[i, j])), rtol=1e-14
            )
    assert feedforward(network, x[:0]).shape == (0, 5, 2)
    np.testing.assert_allclose(jax.jit(jax.vmap(feedforward, (None, 0)))(network, x), a, rtol=1e-14)


def test_the_precision_applies_to_every_product():
    network, _, _ = example((3, 4, 2), 0)
    for precision in (None, "highest"):
        jaxpr = str(jax.make_jaxpr(functools.partial(feedforward, precision=precision))(network, jnp.zeros((5, 3))))
        assert jaxpr.count("dot_general") == 2
        assert jaxpr.count("HIGHEST") == (4 if precision else 0)  # two products with two operands each


@pytest.mark.parametrize("sizes", [(784, 30, 10), (1, 1), [2, 3, 4, 5]], ids=str)
def test_init_network_has_the_given_sizes(sizes):
    network = jax.eval_shape(lambda: init_network(KEY, sizes))
    assert [layer.w.shape for layer in network] == list(zip(sizes[1:], sizes[:-1], strict=True))
    assert [layer.b.shape for layer in network] == [(size,) for size in sizes[1:]]
    assert network_sizes(network) == tuple(sizes)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(network))


def test_init_network_has_the_given_dtype():
    def out(scheme, dtype):
        network = init_network(KEY, (3, 2), scheme, dtype)
        return network, feedforward(network, jnp.ones(3, dtype))

    for scheme in ("gaussian", "scaled"):
        for dtype in (jnp.bfloat16, "float16", np.float32):
            network, a = jax.eval_shape(lambda s=scheme, d=dtype: out(s, d))
            assert {leaf.dtype for leaf in (a, *jax.tree.leaves(network))} == {jnp.dtype(dtype)}


def test_the_default_dtype_under_x64(x64):
    for scheme in ("gaussian", "scaled"):
        network = jax.eval_shape(lambda s=scheme: init_network(KEY, (3, 2), s))
        assert {leaf.dtype for leaf in jax.tree.leaves(network)} == {jnp.dtype(jnp.float64)}


def is_normal(sample, variance):
    """Return True if the means of x, x² and x⁴ are within five standard errors of those of N(0, variance)."""
    n, x = sample.size, np.asarray(sample, np.float64).ravel() / np.sqrt(variance)
    # Divide the error of each mean by the standard deviation of x, x² or x⁴ for N(0, 1).
    errors = abs(x.mean()), abs((x**2).mean() - 1) / np.sqrt(2), abs((x**4).mean() - 3) / np.sqrt(96)
    return all(error < 5 / np.sqrt(n) for error in errors)


@pytest.mark.parametrize(("scheme", "w_variance"), [("gaussian", 1.0), ("scaled", 1 / 64)])
def test_the_random_start_has_its_distribution(scheme, w_variance, seed):
    network = init_network(jax.random.key(seed), (64, 5000), scheme)
    assert is_normal(network[0].w, w_variance)
    assert is_normal(network[0].b, 1.0)


def test_is_normal_is_false_for_other_distributions(seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=30_000)
    assert is_normal(w, 1.0)
    assert not is_normal(w * 1.05, 1.0)
    assert not is_normal(w + 0.05, 1.0)
    assert not is_normal(np.clip(w, -2.5, 2.5), 1.0)
    assert not is_normal(np.sqrt(3) * rng.uniform(-1, 1, w.shape), 1.0)


def test_the_same_key_gives_the_same_bits():
    for scheme in ("gaussian", "scaled"):
        one, other = (init_network(jax.random.key(7), (3, 2), scheme) for _ in range(2))
        assert_leaves_close(one, other, rtol=0)
    another = init_network(jax.random.key(8), (3, 2), "scaled")
    assert not any(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(another), strict=True))


def test_layers_are_independent(seed):
    """All correlations between leaves are within five standard errors of 0."""
    network = init_network(jax.random.key(seed), (100, 100, 100, 100))
    samples = [np.asarray(x).ravel() for x in jax.tree.leaves(network)]
    for i, x in enumerate(samples):
        for y in samples[:i]:
            n = min(x.size, y.size)
            assert abs(np.mean(x[:n] * y[:n])) < 5 / np.sqrt(n)


@pytest.mark.parametrize("scheme", ["gaussian", "scaled"])
def test_random_starts_under_jit_and_vmap(scheme, seed):
    keys = jax.random.split(jax.random.key(seed), 3)

    def start(key):
        return init_network(key, (3, 2), scheme)

    batch = jax.vmap(start)(keys)
    jitted = jax.jit(start)(keys[0])
    assert_leaves_close(jitted, start(keys[0]), rtol=0)
    for i, key in enumerate(keys):
        assert_leaves_close(jax.tree.map(lambda x, i=i: np.asarray(x)[i], batch), start(key), rtol=0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16], ids=lambda d: d.__name__)
def test_a_draw_in_blocks_has_the_bits_of_one_draw(dtype, monkeypatch, x64):
    """The 5 rows are drawn in blocks of 2, so the last block overlaps the block before it."""
    monkeypatch.setattr("jaxgd.network._BLOCK", 14)
    layer = init_network(KEY, (7, 5), "scaled", dtype)[0]
    w_key = jax.random.split(jax.random.split(KEY, 1)[0])[0]
    w = jax.random.normal(w_key, (5, 7), dtype) / jnp.sqrt(jnp.asarray(7, dtype))
    assert_leaves_close(layer.w, w, rtol=0)


def test_a_draw_with_an_offset_counts_beyond_32_bits():
    """The counter of JAX's default generator has 64 bits."""
    key = jax.random.wrap_key_data(jnp.array([5, 6, 0, 2**32 - 2], jnp.uint32), impl=_threefry_at_offset())
    counts = jnp.array([0, 0, 1, 1, 2**32 - 2, 2**32 - 1, 0, 1], jnp.uint32)
    halves = jax.extend.random.threefry_2x32(jnp.array([5, 6], jnp.uint32), counts).reshape(2, 4)
    assert jax.random.bits(key, (4,)).tolist() == (halves[0] ^ halves[1]).tolist()


@pytest.mark.bad_input
def test_a_network_beyond_the_free_memory_is_refused(monkeypatch):
    """The message states the needed and the free memory. If the free memory is unknown, nothing is checked."""
    sizes = (784, 30_000, 30_000, 10)
    monkeypatch.setattr("jaxgd.network.free_memory", lambda: 3 * 10**9)
    with pytest.raises(
        RangeError, match=r"^init_network: .* need 3\.7 GB for the weights, but 3\.0 GB are free\.\nMake"
    ):
        init_network(KEY, sizes)
    jax.eval_shape(lambda key: init_network(key, sizes), KEY)
    monkeypatch.setattr("jaxgd.network.free_memory", lambda: None)
    require_memory("f", sizes, jnp.float32, 1, "the weights")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ((), RangeError),
        ((5,), RangeError),
        ((0, 1), RangeError),
        ((2, 0, 1), RangeError),
        ((2, -3), RangeError),
        ((2.5, 1), DtypeError),
        ((2.0, 1), DtypeError),
        ((True, 1), DtypeError),
        ((2, None), DtypeError),
        ("784,30", DtypeError),
    ],
    ids=repr,
)
def test_bad_sizes_are_refused(sizes, error):
    with pytest.raises(error, match=r"^init_network: .*sizes"):
        init_network(KEY, sizes)


@pytest.mark.bad_input
def test_a_number_for_sizes_is_refused():
    with pytest.raises(JaxgdError, match=r"^init_network: .*sizes"):
        init_network(KEY, 5)


@pytest.mark.bad_input
@pytest.mark.parametrize("scheme", ["xavier", "", "Gaussian", None, 1])
def test_unknown_schemes_are_refused(scheme):
    with pytest.raises(RangeError, match=r"^init_network: scheme must be 'gaussian' or 'scaled', got"):
        init_network(KEY, (2, 1), scheme)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [int, jnp.uint8, bool, jnp.complex64], ids=str)
def test_dtypes_that_are_not_real_floats_are_refused(dtype):
    with pytest.raises(DtypeError, match=r"^init_network: dtype must be real floating point"):
        init_network(KEY, (2, 1), dtype=dtype)


GOOD = Layer(jnp.ones((4, 3)), jnp.ones(4))
INCONSISTENT = {
    "[0]": [
        (Layer(jnp.ones(3), jnp.ones(3)),),
        (Layer(jnp.ones((4, 3)), jnp.ones(3)),),
        (Layer(jnp.ones((4, 3)), jnp.ones((4, 1))),),
        (Layer(jnp.ones((1, 4, 3)), jnp.ones(1)),),
    ],
    "[1]": [
        (GOOD, Layer(jnp.ones((2, 3)), jnp.ones(2))),
        (GOOD, Layer(jnp.ones((2, 4)), jnp.ones(3))),
        (GOOD, Layer(jnp.ones((2, 4)), jnp.ones(()))),
    ],
}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("network", "place"), [(network, place) for place, networks in INCONSISTENT.items() for network in networks]
)
@pytest.mark.parametrize("f", [network_sizes, lambda network: feedforward(network, jnp.ones((5, 3)))])
def test_the_error_names_the_layer_that_does_not_fit(f, network, place):
    with pytest.raises(ShapeError) as failure:
        f(network)
    assert f"layer {place} " in str(failure.value)


@pytest.mark.bad_input
def test_a_neuron_of_scalars_is_refused():
    with pytest.raises(ShapeError, match=r"layer \[0\] must have w"):
        network_sizes((Layer(jnp.array(0.6), jnp.array(0.9)),))


@pytest.mark.bad_input
def test_a_layer_instead_of_a_network_is_refused():
    """Users easily forget the comma in (layer,)."""
    with pytest.raises(JaxgdError, match="network"):
        network_sizes(GOOD)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "network",
    [
        *(None, 3, "net", {}, GOOD.w, np.ones((2, 2)), (GOOD.w, GOOD.b), ((GOOD.w, GOOD.b),), (GOOD, None), range(2)),
        *((GOOD._replace(w=None),), (GOOD._replace(w=np.array([[None]])),), (GOOD._replace(b=jnp.ones(4, int)),)),
        *((GOOD._replace(w=[[1.0]]),), (GOOD._replace(b=np.ma.ones(4)),), (GOOD._replace(b=1.0),)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_objects_that_are_not_networks_are_refused(network):
    for f in (network_sizes, lambda network: feedforward(network, jnp.ones((5, 3)))):
        with pytest.raises(
            DtypeError,
            match=r"^network: (expected a tuple of layers|[wb] of layer \[0\] must be an array of floats), got",
        ):
            f(network)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "change", [{"key": 0}, {"dtype": "x"}, {"dtype": jnp.float8_e4m3fn}, {"scheme": np.ones(2)}], ids=str
)
def test_arguments_of_wrong_types_are_refused(change):
    with pytest.raises(JaxgdError, match=rf"^init_network: {next(iter(change))} must be"):
        init_network(**{"key": KEY, "sizes": (2, 1)} | change)


@pytest.mark.bad_input
def test_an_empty_network_is_refused():
    for f in (network_sizes, lambda network: feedforward(network, jnp.ones((5, 3)))):
        with pytest.raises(ShapeError, match=r"at least one layer, got none\.\nMake one with init_network"):
            f(())


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(), (2,), (5, 4), (3, 1), (28, 28)], ids=str)
def test_inputs_of_another_width_are_refused(shape):
    with pytest.raises(ShapeError, match=r"^feedforward: x must be \(\.\.\., 3\) .*\nFlatten images first"):
        feedforward((GOOD,), jnp.ones(shape))


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, bool, jnp.complex64], ids=str)
def test_inputs_that_are_not_floats_are_refused(dtype):
    with pytest.raises(DtypeError, match=r"^feedforward: x must be real floating point.*\nScale pixels first"):
        feedforward((GOOD,), jnp.ones((5, 3), dtype))

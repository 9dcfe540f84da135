"""The evaluation in chunks equals the evaluation of all rows at once, and a chunk fits its budget."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import assert_leaves_close

from jaxgd import errors, init_network, network_cost, quadratic_cost, sigmoid
from jaxgd.chunks import (
    BUDGETS,
    UNBATCHED,
    Batched,
    Budget,
    batched_over,
    budget_of,
    rows_at_once,
    weighted_inputs_in_chunks,
)
from jaxgd.errors import RangeError
from jaxgd.examples import Examples
from jaxgd.kernels import xla

# Bytes of the inputs, weighted inputs and activations of one row in a network [6, 5, 3], in float32.
ROW = 4 * (6 + 2 * (5 + 3))
# Bytes of the weighted inputs of 97 rows.
KEPT = 97 * 4 * (5 + 3)


@pytest.mark.parametrize(
    ("budget", "batched", "chunk", "products"),
    [
        (Budget(97 * ROW, 0), UNBATCHED, 97, 5),
        (Budget(96 * ROW, KEPT), UNBATCHED, 96, 5),
        (Budget(96 * ROW, KEPT - 1), UNBATCHED, 96, 6),
        (Budget(1, KEPT), UNBATCHED, 1, 5),
        (Budget(96 * ROW, KEPT), Batched(networks=2, data_sets=1), 55, 6),
        (Budget(96 * ROW, 2 * KEPT), Batched(networks=2, data_sets=2), 48, 5),
    ],
    ids=["one chunk", "z kept", "z computed again", "row by row", "2 networks, 1 data set", "2 networks, 2 data sets"],
)
def test_the_budget_decides_the_chunks_and_the_work(budget, batched, chunk, products):
    """The forward pass makes 2 matrix products, and back-propagation makes 3.

    If the weighted inputs exceed the budget, back-propagation repeats the first forward product, never the second.
    """
    rng = np.random.default_rng(0)
    network = init_network(jax.random.key(0), (6, 5, 3))
    x = jnp.asarray(rng.integers(0, 256, (97, 6), np.uint8))
    y = jax.nn.one_hot(np.arange(97) % 3, 3)

    def chunked(v):
        return quadratic_cost(sigmoid(weighted_inputs_in_chunks(v, x, None, budget, batched)), y)

    def whole(v):
        return network_cost(v, x.astype(jnp.float32) / 255, y)

    assert rows_at_once(network, 97, budget, batched) == chunk
    got, want = (jax.value_and_grad(f)(network) for f in (chunked, whole))
    # The chunks add the 97 examples in another order, in float32.
    assert_leaves_close(got, want, rtol=1e-5)
    text = str(jax.make_jaxpr(jax.grad(chunked))(network))
    # A shorter last chunk has a program of its own.
    assert text.count("dot_general") == products * (2 if chunk < 97 and 97 % chunk else 1)


def test_the_rows_of_a_chunk_divide_n_if_possible():
    """One program then computes every chunk."""
    network = init_network(jax.random.key(0), (784, 30, 10))
    budget = BUDGETS["cpu"]
    assert [rows_at_once(network, n, budget) for n in (50_000, 60_000, 2_000)] == [2_000, 2_400, 2_000]
    assert 97 % rows_at_once(network, 97, Budget(50 * 4 * (784 + 80), 0)) == 47


def test_a_wide_network_has_larger_chunks():
    """A chunk may have 8 MiB. With 2²⁴ or more weights and biases, it may have a quarter of their bytes."""

    def rows(width):
        network = jax.eval_shape(lambda: init_network(jax.random.key(0), (784, width, width, 10)))
        return rows_at_once(network, 50_000, BUDGETS["cpu"])

    assert [rows(width) for width in (3_600, 4_000, 30_000)] == [125, 250, 1_250]


def test_an_unknown_platform_has_the_budget_of_a_gpu(monkeypatch):
    assert budget_of(jnp.zeros(1)) == BUDGETS["cpu"]
    monkeypatch.setattr(jax, "default_backend", lambda: "another")
    seen = []
    jax.eval_shape(lambda x: seen.append(budget_of(x)), jnp.zeros(1))
    assert seen == [BUDGETS["gpu"]]


def test_an_algorithm_reaches_every_product_on_a_gpu(monkeypatch):
    """Lower the gradient for CUDA, which needs no GPU. The CPU does not have this algorithm."""
    network = init_network(jax.random.key(0), (6, 5, 3))
    examples = Examples(jnp.zeros((9, 6), jnp.uint8), jnp.zeros(9, jnp.int32))
    objective = xla.Objective(quadratic_cost, "TF32_TF32_F32_X3")
    evaluate = jax.jit(functools.partial(objective.evaluate, gradient=True))
    with pytest.raises(RangeError, match="must be an algorithm that the cpu has"):
        evaluate(network, examples)
    monkeypatch.setattr(errors, "_has_algorithm", lambda *_: True)
    text = evaluate.trace(network, examples).lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 5
    for line in products:
        assert "lhs_precision_type = tf32" in line
        assert "num_primitive_operations = 3" in line


def test_vmap_counts_the_networks_and_the_data_sets():
    """All networks and data sets under vmap share one budget."""
    x, v = jnp.ones((3, 4)), jnp.ones((5, 2))
    seen = []

    def f(x, v):
        seen.append(batched_over([x], [v, jax.random.key(0)]))
        return jnp.sum(x) * jnp.sum(v)

    f(x, v)
    jax.grad(f, argnums=1)(x, v)
    jax.vmap(f, (None, 0))(x, v)
    jax.jit(jax.vmap(jax.vmap(f, (0, None)), (None, 0)))(x, v)
    jax.grad(lambda w: jnp.sum(jax.vmap(lambda v: f(x, w * v))(v)))(1.0)
    assert seen == [UNBATCHED, UNBATCHED, Batched(5, 1), Batched(15, 3), Batched(5, 1)]

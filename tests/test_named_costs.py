"""The named costs agree with the literature and with an independent implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import COSTS
from support import often

from jaxgd.named_costs import NAMED_COSTS


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: cost.__name__)
def test_named_costs_equal_the_reference_figures(cost, seed, x64):
    named = NAMED_COSTS[cost.__name__.replace("_", "-")]
    start, first, minima = COSTS[cost]
    assert named.start == start
    evaluate = jax.jit(lambda v: (named.cost(v), cost(v)))
    assert evaluate(jnp.array(start))[0] == pytest.approx(first, rel=1e-12)
    v = jnp.asarray(np.random.default_rng(seed).normal(size=len(start)))
    ours, written_again = evaluate(v)
    assert ours == pytest.approx(float(written_again), rel=1e-12)
    assert sorted(c for _, c in named.minima) == pytest.approx(sorted(minima), abs=1e-5)


@pytest.mark.parametrize("name", often(NAMED_COSTS, list(NAMED_COSTS)[::2]))
def test_the_listed_minima_are_minima(name, x64):
    named = NAMED_COSTS[name]
    derivatives = jax.jit(lambda v: (*jax.value_and_grad(named.cost)(v), jax.hessian(named.cost)(v)))
    for v, c in named.minima:
        cost, gradient, hessian = derivatives(jnp.array(v))
        assert cost == pytest.approx(c, abs=1e-5)
        # The listed minima are rounded, so ∇C is not exactly 0.
        assert np.linalg.norm(gradient) < 0.05
        assert np.linalg.eigvalsh(hessian).min() > -1e-9

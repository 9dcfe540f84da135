"""The costs of the literature are what the literature says, and as written down a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import COSTS
from support import often

from jaxgd.named_costs import NAMED_COSTS


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: cost.__name__)
def test_they_are_the_reference_figures(cost, seed, x64):
    named = NAMED_COSTS[cost.__name__.replace("_", "-")]
    start, first, minima = COSTS[cost]
    assert named.start == start
    assert named.cost(jnp.array(start)) == pytest.approx(first, rel=1e-12)
    v = jnp.asarray(np.random.default_rng(seed).normal(size=len(start)))
    assert named.cost(v) == pytest.approx(float(cost(v)), rel=1e-12)
    assert sorted(c for _, c in named.minima) == pytest.approx(sorted(minima), abs=1e-5)


@pytest.mark.parametrize("name", often(NAMED_COSTS, list(NAMED_COSTS)[::2]))
def test_their_minima_are_minima(name, x64):
    named = NAMED_COSTS[name]
    for v, c in named.minima:
        v = jnp.array(v)
        assert named.cost(v) == pytest.approx(c, abs=1e-5)
        # Given to five or six digits, at curvatures up to some thousands.
        assert jnp.linalg.norm(jax.grad(named.cost)(v)) < 0.05
        assert jnp.linalg.eigvalsh(jax.hessian(named.cost)(v)).min() > -1e-9

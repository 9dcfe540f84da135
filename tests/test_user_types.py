"""The types that a type checker infers in a user's script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from typing import assert_type

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.typing import ArrayLike

import jaxgd
from jaxgd import Descent, Network, Solution, Trajectory, Verdict


def cost(v: Array) -> Array:
    return jnp.sum(v**2)


def schedule(count: Array) -> ArrayLike:
    return 1 / (1 + count)


rule = jaxgd.gradient_descent(schedule)
solution = jaxgd.minimize(cost, np.zeros(2), rule, max_steps=3)
assert_type(solution, Solution[Array])
assert_type(solution.trajectory, Trajectory[Array] | None)
assert_type(Descent(cost, rule).init(jnp.zeros(2)).v, Array)
assert_type(jaxgd.hessian_vector_product(cost, jnp.zeros(2), np.ones(2)), Array)
assert_type(jaxgd.update(jnp.zeros(2), np.ones(2), 0.1), Array)
assert_type(jaxgd.cost_slice(cost, jnp.zeros(2), (np.array([1, 0]), np.array([0, 1]))).u, Array)

network = jaxgd.init_network(random.key(0), (784, 30, 10))
result = jaxgd.train(network, jaxgd.load_dataset("mnist"), epochs=1, batch_size=10, eta=schedule, key=random.key(1))
assert_type(result.network, Network)
x, y = jnp.zeros((5, 784)), jnp.zeros((5, 10))
gradient = jaxgd.backprop(network, x, y)
assert_type(jaxgd.update(network, gradient, 3.0), Network)
assert_type(jaxgd.sharpness(jaxgd.network_cost, network, args=(x, y)).vector, Network)
assert_type(jaxgd.check_gradients(jaxgd.network_cost, network, x, y, gradient=jaxgd.backprop).verdict, Verdict)
"""


@pytest.mark.slow  # mypy reads all of jax and jaxgd
def test_mypy_infers_the_types_of_a_script(tmp_path):
    pytest.importorskip("mypy")
    root = Path(__file__).parent.parent
    (tmp_path / "script.py").write_text(SCRIPT)
    # mypy checks only the script. It needs pyproject.toml, which lists the libraries without types.
    words = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(tmp_path), str(tmp_path / "script.py")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words],
        env=os.environ | {"MYPYPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

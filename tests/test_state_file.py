"""A state is loaded from its file bit for bit, or a message names the refused file."""

import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from costs import valley
from support import example

from jaxgd import gradient_descent, heavy_ball, load_state, minimize, save_network, save_state
from jaxgd.errors import CheckpointError, DtypeError, ShapeError, WriteError

RULE = heavy_ball(0.1, 0.5)


@pytest.fixture(scope="module")
def state():
    return minimize(valley, jnp.array([1.0, 2.0]), RULE, max_steps=3, record=None).state


@pytest.fixture
def path(tmp_path, state):
    save_state(tmp_path / "run.state", state)
    return tmp_path / "run.state"


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [x.dtype for x in jax.tree.leaves(a)] == [x.dtype for x in jax.tree.leaves(b)]
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=lambda d: d.__name__)
def test_a_saved_state_of_optax_rules_loads_bit_for_bit(tmp_path, dtype, x64):
    """The rule's state holds moments, a count and a random key. The tree v has a dict, a list and an empty leaf."""
    rule = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.adam(0.1))
    v0 = {"a: b": jnp.ones((2, 3), dtype), "b": [jnp.zeros((0, 2), dtype), np.float32(2.0)]}
    solution = minimize(
        lambda v: jnp.sum(v["a: b"] ** 2) + v["b"][1] ** 2, v0, rule, max_steps=2, stop=None, record=None
    )
    save_state(tmp_path / "s", solution.state)
    state = load_state(tmp_path / "s", v0, rule)
    keys = [x.rule[0].rng_key for x in (state, solution.state)]
    assert keys[0].dtype == keys[1].dtype
    same(*map(jax.random.key_data, keys))
    same(*(x._replace(rule=(x.rule[0]._replace(rng_key=jnp.array(0)), *x.rule[1:])) for x in (state, solution.state)))


def test_the_rule_may_have_other_hyperparameters(path, state):
    same(load_state(path, jnp.zeros(2), heavy_ball(0.3, 0.1)), state)


OTHERS = {
    "another rule": (
        lambda: (jnp.zeros(2), gradient_descent(0.1)),
        r" gradient_descent\(eta=0.1\)\. Expected \.rule\.velocity to be absent",
    ),
    "a rule of optax": (lambda: (jnp.zeros(2), optax.adam(0.1)), r"Expected \.rule\[0\]"),
    "another shape": (lambda: (jnp.zeros(3), RULE), r"\.v to be float32\[3\], got float32\[2\]"),
    "another structure": (lambda: ([jnp.zeros(2)], RULE), r"\.v\[0\] to be float32\[2\], got no such array"),
    "another dtype": (lambda: (jnp.zeros(2, jnp.float16), RULE), r"\.v to be float16\[2\], got float32\[2\]"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_another_run_is_refused(path, name):
    given, words = OTHERS[name]
    with pytest.raises(CheckpointError, match=r"^load_state: .*run\.state must hold.*" + words) as caught:
        load_state(path, *given())
    assert "Pass the rule of the run" in str(caught.value)


def test_the_setting_of_float64_must_be_the_same(path, x64):
    with pytest.raises(CheckpointError, match=r"\.step to be int64\[\], got int32\[\](.|\n)*jax_enable_x64"):
        load_state(path, jnp.zeros(2, jnp.float32), RULE)


def test_a_file_that_save_state_did_not_write_is_refused(path, tmp_path):
    """Damaged files, files of other formats and missing files are refused."""
    whole, rng = path.read_bytes(), random.Random(0)
    save_network(tmp_path / "n.safetensors", example((2, 1), seed=0)[0])
    bad = [b"", whole[:-1], whole[:100], whole + b"\0", b"\x80\x04N.", (tmp_path / "n.safetensors").read_bytes()]
    bad += [
        safetensors.numpy.save(x) for x in ({}, {".v": np.ones(2, np.float32)}, {"v": np.ones(2, jnp.float8_e4m3fn)})
    ]
    for _ in range(100):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        bad.append(bytes(flipped))
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"run\.state must be a file that save_state wrote"):
            load_state(path, jnp.zeros(2), RULE)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_state(missing, jnp.zeros(2), RULE)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failed_write_leaves_the_old_file(path, state, monkeypatch, error):
    def fail(*_):
        raise error

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises((WriteError, KeyboardInterrupt)):
                save_state(path, state._replace(v=2 * state.v))
        same(load_state(path, jnp.zeros(2), RULE), state)
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.bad_input
def test_batched_and_traced_states_and_wrong_arguments_are_refused(tmp_path, state):
    for bad, error, words in (
        (None, DtypeError, "state must be the state of a solution"),
        (jax.tree.map(lambda x: jnp.stack([x, x]), state), ShapeError, r"a batch of shape \(2,\)"),
    ):
        with pytest.raises(error, match=r"^save_state: .*" + words):
            save_state(tmp_path / "s", bad)
    with pytest.raises(DtypeError, match="traced"):
        jax.jit(lambda s: save_state(tmp_path / "s", s))(state)
    for v0, rule in ((None, RULE), ("x", RULE), (jnp.zeros(2), None), (jnp.zeros(2), heavy_ball)):
        with pytest.raises((DtypeError, ShapeError), match=r"^load_state: (v0|rule) must"):
            load_state(tmp_path / "s", v0, rule)
    assert not list(tmp_path.iterdir())

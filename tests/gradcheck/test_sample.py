"""Values of F(t) = ⟨w, f(x + t u)⟩, in float64 if f can run in it, otherwise in the arguments' dtype."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd.gradcheck import constants, quotients
from jaxgd.gradcheck.derive import derive
from jaxgd.gradcheck.problem import prepare, with_outputs
from jaxgd.gradcheck.programs import Value
from jaxgd.gradcheck.run import Runner
from jaxgd.gradcheck.sample import first_lines

X, Y = jnp.array([0.3, 1.2, 2.5]), jnp.array([[1.0, 2.0]])
W = np.array([1.0, -0.6, 1.7, 0.3])


def f(x, y):
    return jnp.sum(x**2) * jnp.sum(y)


def single_only(x, y):
    if x.dtype != jnp.float32:
        raise TypeError("float32 only\nmore")
    return f(x, y)


def cast(x, y):
    return f(x.astype(jnp.bfloat16), y).astype(x.dtype)


def iterated(x, y):
    return jax.lax.while_loop(lambda s: s[1] < 1, lambda s: (s[0], s[1] + 1), (f(x, y), jnp.sum(x) * 0))[0]


def sampled(f, n=3):
    prepared = with_outputs(prepare(f, (X, Y, jnp.zeros((0, 2)))[: 2 + (f is three)], None, False), 1.0)
    d = derive(prepared, [], [W], Runner(), 4, np.random.default_rng(0))
    return d, *first_lines(d, prepared, prepared.problem, n)


def three(x, y, empty):
    return f(x, y) + jnp.sum(empty)


def by_hand(d, leaf, k, t, start=0, stop=9):
    """Return f(x + t u), where u is direction k of a leaf, set to 0 outside the elements `start` to `stop` − 1."""
    v = [np.asarray(X, float), np.asarray(Y, float)]
    u = np.asarray(d.shared.directions[leaf][k]).reshape(-1)
    moved = v[leaf].reshape(-1) + t * np.where((np.arange(u.size) >= start) & (np.arange(u.size) < stop), u, 0)
    v[leaf] = moved.reshape(v[leaf].shape)
    return np.sum(v[0] ** 2) * np.sum(v[1])


def test_lines_are_values_along_the_directions_of_each_leaf():
    d, sampler, lines = sampled(f)
    assert sorted(lines) == [0, 1]
    assert (sampler.in_float64, sampler.coarse, sampler.iterates, sampler.narrowest) == (True, False, False, "float64")
    np.testing.assert_array_equal(lines[0].h, constants.SHORT)
    for leaf, line in lines.items():
        assert line.plus.shape == line.minus.shape == (3, len(constants.SHORT))
        for k in range(3):
            for sign, values in ((1, line.plus), (-1, line.minus)):
                np.testing.assert_allclose(
                    values[k], [W[k] * by_hand(d, leaf, k, sign * h) for h in line.h], rtol=1e-13
                )
            assert line.zero[k] == pytest.approx(W[k] * by_hand(d, leaf, k, 0))
            assert line.size[k] == abs(line.zero[k])
    assert lines[0].eps == lines[0].narrow == constants.EPS
    runs = d.runner.runs[Value(sampler.problem)]
    # F(0) is evaluated once per cotangent. Of the four directions, only the fourth has a new cotangent. So there are
    # 1 + 4 · 2 · 2 evaluations, padded to 24.
    sampler.lines([0], 4, quotients.ladder(1.0, 2))
    assert d.runner.runs[Value(sampler.problem)] - runs <= 24
    assert sorted(sampler.zeros) == [0, 1, 2, 3]


def test_elements_are_values_along_parts_of_a_direction():
    d, sampler, _ = sampled(f)
    h = quotients.ladder(0.25, 3)
    found = sampler.elements(0, np.array([0, 2]), np.array([1, 3]), h, 4)
    for i, start in enumerate((0, 2)):
        expected = [by_hand(d, 0, 4, t, start, start + 1) for t in h]
        np.testing.assert_allclose(found.plus[i], expected)
        # The last direction uses the first cotangent, which is 1.
        assert found.zero[i] == pytest.approx(by_hand(d, 0, 4, 0))


def test_an_empty_leaf_has_no_lines():
    assert sorted(sampled(three)[2]) == [0, 1]


@pytest.mark.parametrize(("f", "narrowest", "iterates"), [(cast, "bfloat16", False), (iterated, "float64", True)])
def test_the_sampler_reports_the_narrowest_dtype_and_the_iteration_of_f(f, narrowest, iterates):
    d, sampler, lines = sampled(f, 1)
    assert (sampler.narrowest, sampler.iterates, sampler.in_float64) == (narrowest, iterates, True)
    assert sampler.coarse == any("f itself computes in bfloat16" in note for note in d.notes) == (f is cast)
    assert lines[0].eps == constants.EPS


def test_a_function_that_refuses_float64_runs_in_the_dtype_of_its_arguments():
    d, sampler, lines = sampled(single_only, 1)
    assert not sampler.in_float64
    assert (sampler.eps, sampler.narrow, lines[0].eps) == (constants.EPS32,) * 3
    assert sampler.shared.v[0].dtype == jnp.float32
    assert "f in float64: TypeError: float32 only" in d.notes
    np.testing.assert_allclose(lines[0].plus[0], [by_hand(d, 0, 0, h) for h in constants.SHORT], rtol=1e-5)


def test_eps_determines_the_name_of_the_narrowest_dtype():
    _, sampler, _ = sampled(f, 1)
    for eps, name in ((2.0**-7, "bfloat16"), (2.0**-10, "float16"), (2.0**-23, "float32"), (2.0**-52, "float64")):
        assert dataclasses.replace(sampler, narrow=eps).narrowest == name

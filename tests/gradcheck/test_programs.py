"""The programs agree with each other and with derivatives by hand, for real and complex arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd.gradcheck.problem import Opaque, prepare, with_outputs
from jaxgd.gradcheck.programs import (
    ClaimedGradient,
    ClaimedJvp,
    ClaimedVjp,
    Forward,
    Outputs,
    Point,
    Reverse,
    Shared,
    Value,
    bilinear,
    whole_cotangent,
)

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


V = [RNG.normal(size=(2, 3)), normal(3)]
U = [RNG.normal(size=(2, 2, 3)), normal(2, 3)]
W = [normal(2, 2)]


def f(x, z):
    """A bilinear function. F(t) along a direction in one leaf is linear, so difference quotients are exact."""
    return {"n": jnp.arange(2), "y": x @ z}


@pytest.fixture
def problem(x64):
    point = prepare(f, tuple(V), None, False)
    return with_outputs(point, f(*V)).problem


@pytest.fixture
def shared(x64):
    return Shared([jnp.asarray(v) for v in V], [], U, W)


def point(leaf, t=0.0, start=0, stop=6, phase=1.0, direction=1):
    return Point(leaf, direction, 0, start, stop, t, np.asarray(phase, complex))


def masked(leaf, start=0, stop=6, phase=1.0, direction=1):
    """Return the direction in one leaf as arrays, set to 0 outside the elements `start` to `stop` − 1."""
    place = np.arange(V[leaf].size).reshape(V[leaf].shape)
    u = np.where((start <= place) & (place < stop), U[leaf][direction], 0)
    u = u * phase if leaf else u * np.real(phase)
    return (u, 0 * V[1]) if leaf == 0 else (0 * V[0], u)


def by_hand(u):
    """Return Re Σ w (J u) for the bilinear f."""
    return np.real(np.sum(W[0][0] * (u[0] @ V[1] + V[0] @ u[1])))


POINTS = [
    (0, {}),
    (1, {}),
    (0, {"start": 2, "stop": 4}),
    (1, {"phase": 1j}),
    (0, {"phase": 0.5}),
    (1, {"direction": 0}),
]


@pytest.mark.parametrize(("leaf", "options"), POINTS)
def test_value_forward_and_reverse_have_the_same_slope(problem, shared, leaf, options):
    u = masked(leaf, **options)
    expected = by_hand(u)
    assert Forward(problem)(shared, point(leaf, **options)) == pytest.approx(expected)
    (plus, size), (zero, _) = (Value(problem)(shared, point(leaf, t, **options)) for t in (0.5, 0.0))
    assert (plus - zero) / 0.5 == pytest.approx(expected)
    terms = W[0][0] * ((V[0] + 0.5 * u[0]) @ (V[1] + 0.5 * u[1]))
    assert size == pytest.approx(np.sum(np.abs(np.real(terms))))
    out, pulled = Reverse(problem)([], (shared.v, [W[0][0]]))
    np.testing.assert_allclose(out[0], f(*V)["y"])
    assert bilinear(pulled, u) == pytest.approx(expected)
    claim = ClaimedJvp(problem, Opaque(lambda p, t: jax.jvp(f, p, t)))
    assert claim(shared, point(leaf, **options)) == pytest.approx(expected)


def test_outputs_computes_values_and_no_gradient(problem, shared):
    out, gradient = Outputs(problem)([], (shared.v, [W[0][0]]))
    np.testing.assert_allclose(out[0], V[0] @ V[1])
    assert gradient == []


def test_a_claimed_vjp_gives_zeros_for_a_leaf_without_a_usable_value(problem, shared):
    claim = ClaimedVjp(problem, Opaque(lambda *args: jax.vjp(f, *args)), (0, None))
    _, (x, z) = claim([], (shared.v, [W[0][0]]))
    np.testing.assert_allclose(x, np.real(np.outer(W[0][0], V[1])))
    # The claim has no usable value for z.
    np.testing.assert_array_equal(z, np.zeros(3))


def test_a_claimed_gradient_is_multiplied_by_the_cotangent(x64):
    x = jnp.arange(3.0)
    scalar = with_outputs(prepare(jnp.sum, (x,), None, False), 1.0).problem
    claim = ClaimedGradient(scalar, Opaque(lambda x: [jnp.zeros(()), 2 * x]), (1,))
    _, (g,) = claim([], ([x], [jnp.asarray(-3.0)]))
    np.testing.assert_array_equal(g, [0, -6, -12])


def test_a_whole_cotangent_has_float0_for_integers(problem):
    out = {"n": np.arange(2), "y": np.ones(2, np.complex64)}
    whole = whole_cotangent(problem, out, [np.array([1.0, 2.0])])
    assert whole["n"].dtype == jax.dtypes.float0
    assert whole["y"].dtype == np.complex64
    np.testing.assert_array_equal(whole["y"], [1, 2])

"""A step is exactly v − η∇C: the book's neuron to ten digits, the valley, pytrees, dtypes and bad step sizes."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import assert_leaves_close, leaves

from jaxgd.backpropagation import backprop
from jaxgd.cost import network_cost
from jaxgd.errors import DtypeError, JaxgdError, RangeError, ShapeError
from jaxgd.network import Layer, feedforward
from jaxgd.rules import gradient_descent, update

Pair = collections.namedtuple("Pair", "left right")


def one_neuron(w, b, gradient, eta=0.15, updates=300):
    """Train the book's neuron on x = 1 and y = 0. Return every 150th output and the last weight and bias."""
    x, y = jnp.array([1.0]), jnp.array([0.0])

    @jax.jit
    def run(network):
        def step(v, _):
            return update(v, gradient(v, x, y), eta), feedforward(v, x)[0]

        network, outputs = jax.lax.scan(step, network, length=updates)
        return network, jnp.append(outputs, feedforward(network, x))

    network, outputs = run((Layer(jnp.array([[w]]), jnp.array([b])),))
    return np.array([*outputs[::150], network[0].w[0, 0], network[0].b[0]])


TABLE = {
    (0.6, 0.9): (0.8175744762, 0.1527398856, 0.0939556949, -1.2831324334, -0.9831324334),
    (2.0, 2.0): (0.9820137900, 0.9334174726, 0.2028484243, -0.6842929110, -0.6842929110),
}
GRADIENTS = {"autodiff": jax.grad(network_cost), "backprop": backprop}
# The table has ten decimals. The rounding of three hundred steps in float64 is about 1e-14.
HALF_A_DIGIT = 0.5e-10 + 1e-13


@pytest.mark.parametrize("start", TABLE, ids=str)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_books_neuron_is_reproduced_to_ten_digits(start, gradient, x64):
    np.testing.assert_allclose(one_neuron(*start, GRADIENTS[gradient]), TABLE[start], rtol=0, atol=HALF_A_DIGIT)


def usual_mean(v, x, y):
    return jnp.mean((feedforward(v, x) - y) ** 2)


@pytest.mark.parametrize(
    "change",
    [{"gradient": jax.grad(usual_mean)}, {"eta": 0.15 * (1 + 1e-8)}, {"updates": 299}],
    ids=["gradient", "eta", "updates"],
)
def test_a_wrong_cost_eta_or_number_of_updates_misses_the_table(change, x64):
    """Drop the factor 1/2 of the cost, change the ninth digit of the step size, or drop the last update."""
    w_and_b = one_neuron(0.6, 0.9, **{"gradient": backprop, **change})[-2:]
    assert np.abs(w_and_b - TABLE[0.6, 0.9][-2:]).min() > HALF_A_DIGIT


@pytest.mark.parametrize("eta", [0.1, 0.45, 0.5, 0.7, 1.25])
def test_the_valley_follows_the_closed_form(eta, x64):
    """For C = v₁² + v₂², v_k = (1 − 2η)ᵏ v₀. Each step rounds three times, so 50 steps are off by less than 1e-13."""

    def step(v, _):
        v = update(v, jax.grad(lambda v: v["v1"] ** 2 + v["v2"] ** 2)(v), eta)
        return v, v

    _, path = jax.lax.scan(step, {"v1": jnp.array(1.0), "v2": jnp.array(1.0)}, length=50)
    for v in path.values():
        # atol is for η = 0.45, where v − 0.9v loses a digit in each step.
        np.testing.assert_allclose(v, (1 - 2 * eta) ** np.arange(1.0, 51.0), rtol=1e-13, atol=1e-16)


TREES = {
    "array": jnp.arange(6.0).reshape(2, 3),
    "scalar": jnp.array(2.0),
    "network": (Layer(jnp.ones((2, 3)), jnp.zeros(2)), Layer(jnp.ones((1, 2)), jnp.ones(1))),
    "nested": {"a": [jnp.ones(2), (jnp.zeros(3),)], "b": Pair(jnp.array(1.0), None), "c": {}},
    "empty": (),
}


@pytest.mark.parametrize("tree", TREES)
def test_any_pytree_of_variables_is_updated(tree):
    v = TREES[tree]
    gradient = jax.tree.map(lambda x: x + 1, v)
    want = jax.tree.map(
        lambda x: x - 0.25 * (x + 1), v
    )  # exact, because all values are small multiples of a power of two
    assert_leaves_close(update(v, gradient, 0.25), want, rtol=0)
    assert_leaves_close(jax.jit(update)(v, gradient, 0.25), want, rtol=0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("eta", [0.5, np.float32(0.5), np.float64(0.5), "float32", "float64"], ids=repr)
def test_the_dtype_is_kept(dtype, eta, x64):
    eta = jnp.array(0.5, eta) if isinstance(eta, str) else eta
    for g_dtype in (dtype, jnp.float32):
        v, gradient = jnp.ones(3, dtype), jnp.ones(3, g_dtype)
        assert jax.eval_shape(update, v, gradient, eta).dtype == dtype
        if not isinstance(eta, jax.Array):
            assert jax.eval_shape(lambda v, g: update(v, g, eta), v, gradient).dtype == dtype


@pytest.mark.parametrize("function", ["update", "gradient_descent"])
def test_jit_may_close_over_a_step_size(function):
    """jnp.float32(0.25) is an array with a known value. Inside jit, operations on it give tracers."""
    eta = jnp.float32(0.25)
    f = {"update": lambda v: update(v, v, eta), "gradient_descent": lambda v: -gradient_descent(eta).update(v, ())[0]}
    np.testing.assert_array_equal(
        jax.jit(f[function])(jnp.ones(2)), {"update": 0.75, "gradient_descent": 0.25}[function]
    )


def test_a_float32_step_size_rounds_a_bfloat16_step_once(x64):
    """In bfloat16, η = 0.1 would be 0.1001 and the step would be rounded twice."""
    v, gradient, eta = jnp.ones(3, jnp.bfloat16), jnp.full(3, 0.7, jnp.bfloat16), jnp.float32(0.1)
    want = np.asarray(1 - np.float32(0.1) * np.asarray(gradient, np.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(update(v, gradient, eta), want)


BAD_ETAS = [0.0, -1.0, float("nan"), float("inf"), True, np.True_, [0.1], jnp.ones(1), np.ones(2), 1j, jnp.array(1j)]
MAKERS = {"update": lambda eta: update(jnp.ones(2), jnp.ones(2), eta), "gradient_descent": gradient_descent}


@pytest.mark.bad_input
@pytest.mark.parametrize("function", MAKERS)
@pytest.mark.parametrize("eta", BAD_ETAS, ids=repr)
def test_bad_step_sizes_are_refused(function, eta):
    with pytest.raises((RangeError, DtypeError), match=rf"^{function}: eta must be"):
        MAKERS[function](eta)


@pytest.mark.bad_input
@pytest.mark.parametrize("function", MAKERS)
@pytest.mark.parametrize("eta", [None, "0.1"], ids=repr)
def test_a_step_size_that_is_not_a_number_is_refused(function, eta):
    with pytest.raises(DtypeError, match=rf"^{function}: eta must be one real number"):
        MAKERS[function](eta)


def test_a_batch_of_step_sizes_equals_single_updates():
    v, gradient = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])
    etas = jnp.array([0.25, 0.5, 2.0])
    batch = jax.vmap(update, (None, None, 0))(v, gradient, etas)
    for eta, element in zip(etas, batch, strict=True):
        np.testing.assert_array_equal(element, update(v, gradient, eta))
    slope = jax.grad(lambda eta: jnp.sum(update(v, gradient, eta)))(0.1)
    assert float(slope) == 0.5  # −Σ∇C


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "gradient", [(jnp.ones(2),), {"b": jnp.ones(2)}, {"a": None}, {"a": [jnp.ones(2)]}, jnp.ones(2)], ids=str
)
def test_a_gradient_of_another_tree_structure_is_refused(gradient):
    with pytest.raises(ShapeError, match=r"^update: the gradient must be a tree like v"):
        update({"a": jnp.ones(2)}, gradient, 0.1)


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 2)], ids=str)
def test_a_gradient_of_another_shape_is_named(shape):
    v = (Layer(jnp.ones((2, 2)), jnp.ones(2)),)
    with pytest.raises(ShapeError, match=r"^update: variable \[0\]\.b is float32\[2\] but its gradient is float32\["):
        update(v, (Layer(jnp.ones((2, 2)), jnp.ones(shape)),), 0.1)


@pytest.mark.bad_input
@pytest.mark.parametrize(("v", "g"), [(jnp.array(3), 1.0), (jnp.array(1.0), 1j)], ids=["integer v", "complex gradient"])
def test_an_update_that_would_lose_a_fraction_or_imaginary_part_is_refused(v, g):
    """The integer 3 − 0.1 would become 2, and a complex gradient would lose its imaginary part."""
    with pytest.raises(JaxgdError, match=r"^update"):
        update(v, jnp.array(g), 0.1)


@pytest.mark.parametrize("eta", [0.1, 3.0, np.float32(0.3)], ids=repr)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16], ids=lambda d: d.__name__)
def test_the_transformation_equals_update_bit_for_bit(dtype, eta, seed, x64):
    rng = np.random.default_rng(seed)
    v, gradient = ({"w": jnp.asarray(rng.normal(size=(50, 3)), dtype)} for _ in range(2))

    def by_rule(v, gradient, eta):
        rule = gradient_descent(eta)
        step, _ = rule.update(gradient, rule.init(v), v)
        return optax.apply_updates(v, step)

    if eta == 0.1:  # also without jit
        assert_leaves_close(by_rule(v, gradient, eta), update(v, gradient, eta), rtol=0)
    assert_leaves_close(jax.jit(by_rule)(v, gradient, eta), jax.jit(update)(v, gradient, eta), rtol=0)


def test_a_difference_of_one_bit_fails_the_comparison():
    v = update(jnp.ones(3), jnp.ones(3), 0.1)
    with pytest.raises(AssertionError, match="is off by"):
        assert_leaves_close({"v": jnp.nextafter(v, jnp.inf)}, {"v": v}, rtol=0)


def test_gradient_descent_composes_with_optax():
    rule = optax.chain(optax.clip_by_global_norm(1.0), gradient_descent(0.5))
    v = {"v": jnp.array([3.0, 4.0])}
    step, state = rule.update(v, rule.init(v), v)
    np.testing.assert_allclose(step["v"], [-0.3, -0.4], rtol=1e-6)  # (3, 4) clipped to length 1, times −η
    assert leaves(optax.apply_updates(v, step))["['v']"].dtype == np.float32
    assert not jax.tree.leaves(state)


def test_a_new_step_size_does_not_recompile():
    traces = collections.Counter()

    def step(name, v, eta):
        traces[name] += 1
        if name == "update":
            return update(v, v, eta)
        return optax.apply_updates(v, gradient_descent(eta).update(v, ())[0])

    for name in ("update", "rule"):
        traced = jax.jit(step, static_argnums=0)
        for eta in (0.1, 0.2, 0.3):
            traced(name, jnp.ones(2), eta)
        assert traces[name] == 1
        traces[name] = 0
        static = jax.jit(step, static_argnums=(0, 2))
        for eta in (0.1, 0.2, 0.3):
            static(name, jnp.ones(2), eta)
        assert traces[name] == 3, "a static eta must retrace"


def test_the_transformation_works_under_vmap_over_eta():
    def by_rule(eta):
        rule = gradient_descent(eta)
        return rule.update(jnp.array([1.0, 2.0]), rule.init(jnp.zeros(2)))[0]

    np.testing.assert_array_equal(jax.jit(jax.vmap(by_rule))(jnp.array([0.5, 2.0])), [[-0.5, -1.0], [-2.0, -4.0]])


def test_attributes_keep_their_old_names_with_a_warning():
    rule = gradient_descent(0.25)
    for old, new in {"kind": "spec", "numbers": "hyperparams", "settings": "static_args"}.items():
        with pytest.warns(DeprecationWarning, match=f"Rule.{old} is now Rule.{new}"):
            assert getattr(rule, old) is getattr(rule, new)
    with pytest.raises(AttributeError, match="no attribute 'learning_rate'"):
        _ = rule.learning_rate

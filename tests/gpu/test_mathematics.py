"""Costs, gradients, Hessian products and descent equal exact results, in the requested precision.

Large matrix products at the default precision use TF32 on a GPU: 11 bits of each factor instead of 24.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import rosenbrock
from support import assert_leaves_close, by_hand, example

from jaxgd import Layer, backprop, hessian_vector_product, init_network, minimize, network_cost
from jaxgd.rules import gradient_descent

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

# The rounding of TF32, relative: 2⁻¹¹ to nearest, or up to 2⁻¹⁰ if bits are dropped.
TF32 = 2.0**-10


def distance(actual, exact):
    """Return the largest ‖actual − exact‖ / ‖exact‖ over all leaves."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(exact), strict=True)
    return max(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b) for a, b in pairs)


def test_the_default_precision_of_a_large_product_is_tf32_on_a_gpu(require, on_gpu):
    """XLA computes a large product on the tensor cores. The other tests of TF32 assume this."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 512, 512)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    # Sums of 512 terms in float32: √512 × 2⁻²⁴ = 1.3e-6 if every rounding is independent.
    require("error at highest", distance(jnp.matmul(a, b, precision="highest"), exact), most=2e-6)
    # Each of the two factors has an error of at most 2⁻¹⁰. Rounding to nearest makes the product wrong by about 2.9e-4.
    loose = {"most": 2 * TF32, "least": 1e-4} if on_gpu else {"most": 2e-6}
    require("error at default", distance(jnp.matmul(a, b), exact), **loose)
    require("error at tensorfloat32", distance(jnp.matmul(a, b, precision="tensorfloat32"), exact), **loose)


@functools.cache
def at_work():
    """Return the book's network at scaled weights, with 256 images that are as sparse as MNIST's, and exact results."""
    network = init_network(jax.random.key(0), (784, 30, 10), scheme="scaled", dtype=jnp.float32)
    rng = np.random.default_rng(1)
    x = np.where(rng.random((256, 784)) < 0.2, rng.random((256, 784)), 0).astype(np.float32)
    y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 256)]
    return network, x, y, by_hand(network, x, y)


@pytest.mark.parametrize("precision", ["highest", None])
def test_cost_and_gradients_equal_numpy(require, on_gpu, precision):
    network, x, y, (c, _, gradient) = at_work()
    # float32: a sum of 784 terms has an error of about √784 × 2⁻²⁴ = 2e-6, and three more products follow.
    # TF32: a gradient takes four products: two forward, one back and one over the examples. Each has two factors of 11
    # bits. If all eight errors added up, the result would be wrong by 8 × 2⁻¹⁰. XLA may compute a small product in
    # float32.
    most = 8 * TF32 if on_gpu and precision is None else 1e-5
    # XLA would merge the two gradients if one program computed both.
    cost = functools.partial(network_cost, precision=precision)
    actual, by_autodiff = jax.jit(jax.value_and_grad(cost))(network, x, y)
    by_book = jax.jit(functools.partial(backprop, precision=precision))(network, x, y)
    require("error of C", abs(float(actual) / c - 1), most)
    require("error of jax.grad", distance(by_autodiff, gradient), most)
    require("error of backprop", distance(by_book, gradient), most)


def test_a_zero_row_exceeds_the_limits():
    """The test above would fail if the largest row of the gradient by w¹ were 0."""
    _, _, _, (_, _, gradient) = at_work()
    w = gradient[0].w.copy()
    w[np.argmax(np.linalg.norm(w, axis=1))] = 0
    assert distance((Layer(w, gradient[0].b), gradient[1]), gradient) > 8 * TF32


def test_costs_gradients_and_hessian_products_have_the_precision_of_float64(x64):
    network, x, y = example((5, 4, 3, 2), seed=3, dtype=jnp.float64)
    u = jax.tree.map(lambda v: np.cos(7.0 * np.arange(v.size)).reshape(v.shape), network)

    @jax.jit
    def computed(network, x, y, u):
        product = hessian_vector_product(network_cost, network, u, args=(x, y))
        return network_cost(network, x, y), jax.grad(network_cost)(network, x, y), backprop(network, x, y), product

    c, by_autodiff, by_book, product = computed(network, x, y, u)
    exact, _, gradient = by_hand(network, x, y)
    # About 1,000 operations, each rounded by 1.1e-16.
    np.testing.assert_allclose(c, exact, rtol=1e-12)
    assert_leaves_close(by_autodiff, gradient, rtol=1e-12)
    assert_leaves_close(by_book, gradient, rtol=1e-12)

    def moved(h):
        at = jax.tree.map(lambda v, u: np.asarray(v) + h * u, network, u)
        return by_hand(at, x, y)[2]

    # The reference is (4 D(h) − D(2h))/3 with D(h) = (∇C(v + hu) − ∇C(v − hu))/2h. Its truncation error is h⁴ = 1e-12
    # times derivatives that are up to 1e3 times the product, so about 1e-9 of the product. Rounding adds less.
    h = 1e-3
    near, far = (jax.tree.map(lambda a, b, h=h: (a - b) / (2 * h), moved(h), moved(-h)) for h in (h, 2 * h))
    assert_leaves_close(product, jax.tree.map(lambda a, b: (4 * a - b) / 3, near, far), rtol=1e-9)


# For each η, C of Rosenbrock's function after 1,000 updates from (−1.2, 1), computed in float64.
FIGURES = {1e-3: 0.4535290, 1.5e-3: 0.1576532}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_descent_reaches_the_reference_costs(require, x64, dtype):
    # float64: the expected costs have six digits. float32: each update rounds v by 2⁻²⁴. If all roundings of 1,000
    # updates add up, v is off by 6e-5 and C by 2e-4.
    most = {"float64": 5e-6, "float32": 2e-4}[dtype]
    for eta, expected in FIGURES.items():
        start, rule = jnp.array([-1.2, 1.0], dtype), gradient_descent(jnp.asarray(eta, dtype))
        solution = minimize(rosenbrock, start, rule, max_steps=1_000, stop=None, record=None)
        assert (solution.v.dtype, int(solution.steps)) == (dtype, 1_000)
        require(f"error of C, η = {eta}", abs(float(solution.cost) / expected - 1), most)


@pytest.mark.parametrize(("z", "slope"), [(14, 8.31527e-7), (16, 1.12535e-7), (17, 4.13994e-8), (20, 2.06115e-9)])
def test_a_saturated_neuron_has_the_gradient_of_exact_arithmetic(require, z, slope):
    """For one neuron with a = σ(z) and y = 0, ∂C/∂b = a σ(z) σ(−z)."""
    network = (Layer(np.zeros((1, 1), np.float32), np.full(1, z, np.float32)),)
    x = y = np.zeros((1, 1), np.float32)
    # exp on a GPU may first multiply z by log₂e, with an error of |z| log₂e 2⁻²⁴ = 2e-6. `slope` has six digits.
    for name, gradient in (("backprop", backprop), ("jax.grad", jax.grad(network_cost))):
        require(f"error of {name}", abs(float(_jitted(gradient)(network, x, y)[0].b[0]) / slope - 1), most=1e-5)


@functools.cache
def _jitted(f):
    return jax.jit(f)

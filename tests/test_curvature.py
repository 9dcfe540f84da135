"""Matrix-free curvature agrees with dense Hessians, and slices agree with the cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import in_numpy, rosenbrock
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from support import example, often, scaled

from jaxgd import (
    CostSlice,
    Descent,
    RangeError,
    ShapeError,
    cost_slice,
    eigenpairs,
    gradient_descent,
    hessian_vector_product,
    minimize,
    network_cost,
    sharpness,
)
from jaxgd.errors import DtypeError


def symmetric(n, seed):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return (a + a.T) / 2


def quadratic(v, a):
    return jnp.vdot(v, a @ v) / 2


def diagonal(v, d):
    return jnp.sum(d * v**2) / 2


def flatten(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@jax.jit
def dense_hessian(network, x, y):
    flat, unravel = jax.flatten_util.ravel_pytree(network)
    return jax.hessian(lambda v: network_cost(unravel(v), x, y))(flat)


def dense_eigenvalues(network, x, y):
    return np.linalg.eigvalsh(dense_hessian(network, x, y))[::-1]


cost_of = jax.jit(network_cost)


def test_a_product_equals_the_dense_hessian_times_the_vector(seed, x64):
    network, x, y = example((4, 5, 3), seed)
    u = jax.tree.map(lambda w: np.random.default_rng(seed).normal(size=w.shape), network)
    want = np.asarray(dense_hessian(network, x, y)) @ flatten(u)
    product = jax.jit(lambda u: hessian_vector_product(network_cost, network, u, args=(x, y)))
    np.testing.assert_allclose(flatten(product(u)), want, rtol=1e-11, atol=1e-14)


SMALL = [(2, 2), (4, 5, 3)]
LARGE = [(9, 20, 10), (15, 20, 8)]


@pytest.mark.parametrize("sizes", often([*SMALL, *LARGE], [SMALL[1]]), ids=str)
def test_sharpness_is_the_largest_eigenvalue_of_a_network(sizes, seed, x64):
    network, x, y = example(sizes, seed)
    found = sharpness(network_cost, network, args=(x, y))
    want = dense_eigenvalues(network, x, y)[0]
    assert bool(found.converged)
    assert found.value == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    "n_k", often([(1, 1), (2, 2), (3, 2), (17, 1), (120, 1), (120, 5)], [(1, 1), (3, 2), (120, 5)]), ids=str
)
def test_the_largest_eigenpairs_of_random_matrices_are_exact(n_k, seed, x64):
    n, k = n_k
    a = symmetric(n, seed)
    found = eigenpairs(quadratic, jnp.zeros(n), k, args=(jnp.asarray(a),))
    assert bool(found.converged)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(a)[::-1][:k], rtol=0, atol=1e-9 * n)
    vectors, values = np.asarray(found.vectors), np.asarray(found.values)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-10)
    off = np.linalg.norm(a @ vectors.T - vectors.T * values, axis=0)
    assert np.all(off <= 1e-7 * np.abs(values).max())


@pytest.mark.parametrize(
    "spectrum",
    [
        [3.0] * 3 + [1.0] * 37,
        [0.0] * 40,
        [-1.0] + [-2.0, -3.0, -4.0] * 13,
        [5.0] + [1e-3] * 39,
        [2.0, 2 - 1e-9] + [1.0] * 38,
        [0.0, *np.linspace(-9, -1, 39)],
    ],
    ids=["repeated", "all zero", "all negative", "far apart", "nearly equal", "largest is zero"],
)
def test_sharpness_of_hard_spectra_converges(spectrum, x64):
    found = sharpness(diagonal, jnp.ones(40), args=(jnp.array(spectrum),))
    assert found.value == pytest.approx(max(spectrum), abs=1e-8)
    assert bool(found.converged)


def between(low, high):
    return list(np.linspace(low, high, 37))


# Each spectrum begins with its three smallest eigenvalues. For the largest ones, the test negates the matrix.
ENDS = {
    "apart": [0.1, 0.2, 0.4, *between(1, 2)],
    "negative": [-3.0, -2.0, -1.0, *between(-0.9, 2)],
    "clustered": [-3 - 2e-6, -3 - 1e-6, -3.0, *between(-2, 1)],
    "smallest two equal": [-3.0, -3.0, -2.9, *between(-2, 1)],
    "second and third equal": [-3.0, -2.0, -2.0, *between(-1.9, 1)],
    "three equal": [-3.0, -3.0, -3.0, *between(-2, 1)],
    "four equal": [-3.0] * 4 + between(-2, 1)[1:],
    "one zero": [-2.0, -1.0, 0.0, *between(0.5, 50)],
    "three zeros": [0.0, 0.0, 0.0, *between(1, 100)],
    "three zeros, others from 1 in equal ratios": [0.0, 0.0, 0.0, *np.geomspace(1, 200, 37)],
    "all zero": [0.0] * 40,
    "below rounding in float32": [0.01, 0.02, 0.03, *between(1e3, 1e4)],
}


def test_a_first_direction_without_the_largest_eigenvector_still_finds_it(seed):
    """The search starts orthogonal to the eigenvector of λ = 3. From this direction alone, it would find λ = 2."""
    with jax.enable_x64(True):
        direction = np.asarray(jax.random.normal(jax.random.key(0), (2, 40), float))[0]
        columns = symmetric(40, seed)
        columns[:, 0] -= direction * (direction @ columns[:, 0]) / (direction @ direction)
        rotation = np.linalg.qr(columns)[0]
        a = rotation * np.array([3.0, 2.0, 1.5, *between(-1, 1)]) @ rotation.T
        found = in_numpy(sharpness(quadratic, jnp.zeros(40), args=(jnp.asarray((a + a.T) / 2),)))
    assert found.converged
    # The residual is at most √eps λ, and the error of the eigenvalue is at most the residual.
    np.testing.assert_allclose(found.value, 3.0, rtol=1.5e-8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("which", ["SA", "LA"])
@pytest.mark.parametrize("name", ENDS)
def test_both_ends_of_a_spectrum_equal_eigvalsh(name, which, dtype, seed):
    rotation = np.linalg.qr(symmetric(40, seed))[0]
    a = rotation * np.array(ENDS[name]) @ rotation.T * (1 if which == "SA" else -1)
    a = np.asarray((a + a.T) / 2, dtype)
    with jax.enable_x64(dtype == jnp.float64):
        found = in_numpy(eigenpairs(quadratic, jnp.zeros(40, dtype), 3, which=which, args=(jnp.asarray(a),)))
    a, values, vectors, residuals = (np.asarray(x, float) for x in (a, found.values, found.vectors, found.residuals))
    want = np.linalg.eigvalsh(a)
    # A sum of 40 terms rounds by about √40 eps ‖H‖. eigenpairs and eigvalsh both round, hence twice this bound.
    rounding = 2 * np.sqrt(40) * np.finfo(dtype).eps * np.abs(want).max()
    want = want[:3] if which == "SA" else want[::-1][:3]
    assert np.all(np.abs(values - want) <= residuals + rounding)
    assert np.all(np.linalg.norm(a @ vectors.T - vectors.T * values, axis=0) <= residuals + rounding)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=100 * np.finfo(dtype).eps)
    assert bool(found.converged) == (name != "below rounding in float32" or dtype == jnp.float64)
    if found.converged:
        assert residuals.max() <= max(np.sqrt(np.finfo(dtype).eps) * np.abs(want).max(), 4 * rounding)
    assert found.products < 1000


def test_too_few_products_do_not_converge(x64):
    d = np.linspace(0.999, 1.0, 3000)
    found = sharpness(diagonal, jnp.zeros(3000), args=(jnp.asarray(d),), rtol=1e-12, max_products=20)
    assert not bool(found.converged)
    assert found.residual > 1e-12


@pytest.mark.slow
def test_a_warm_start_saves_products(seed, x64):
    network, x, y = example((4, 5, 3), seed)
    cold = sharpness(network_cost, network, args=(x, y))
    moved = scaled(network, 1 + 1e-4)
    warm = sharpness(network_cost, moved, args=(x, y), start=cold.vector)
    assert warm.products <= cold.products
    assert warm.value == pytest.approx(dense_eigenvalues(moved, x, y)[0], rel=1e-6)


def test_a_warm_start_at_another_eigenvector_finds_the_largest(x64):
    """The start is an eigenvector of a smaller eigenvalue. A search that only refines its start would stay there."""
    d = jnp.array([1.0, 2.0, 7.0] + [0.5] * 37)
    found = sharpness(diagonal, jnp.ones(40), args=(d,), start=jnp.asarray(np.eye(40)[1]))
    assert found.value == pytest.approx(7.0, rel=1e-9)


def test_sharpness_under_jit_and_vmap(x64):
    scales = jnp.array([1.0, 2.0, 5.0])
    found = jax.jit(jax.vmap(lambda s: sharpness(lambda v: s * rosenbrock(v), jnp.ones(2)).value))(scales)
    np.testing.assert_allclose(found, 1001.60064 * scales, rtol=1e-7)


def test_sharpness_of_the_books_network_equals_scipy(x64):
    """The Hessian has 23,860 rows, one for each weight and bias."""
    scipy_linalg = pytest.importorskip("scipy.sparse.linalg")
    network, x, y = example((784, 30, 10), 0, batch=(5,))
    flat, unravel = jax.flatten_util.ravel_pytree(network)

    @jax.jit
    def product(u):
        hu = hessian_vector_product(network_cost, network, unravel(u), args=(x, y))
        return jax.flatten_util.ravel_pytree(hu)[0]

    operator = scipy_linalg.LinearOperator((flat.size, flat.size), matvec=lambda u: np.asarray(product(u)), dtype=float)
    (want,) = scipy_linalg.eigsh(operator, k=1, which="LA", tol=1e-10, return_eigenvectors=False, v0=np.ones(flat.size))
    found = sharpness(network_cost, network, args=(x, y))
    assert found.value == pytest.approx(want, rel=1e-6)


# Slices.


@pytest.mark.parametrize("directions", often(["random", "gradient", "eigenvectors"], ["gradient"]))
def test_a_slice_holds_the_cost_on_a_plane(directions, seed, x64):
    network, x, y = example((4, 5, 3), seed)
    found = cost_slice(network_cost, network, directions, args=(x, y), span=0.5, resolution=5)
    numbers = jax.tree.map(np.asarray, found)
    project = jax.jit(CostSlice.project)
    for i, j in ((0, 0), (2, 2), (4, 1)):
        a, b = numbers.a[i], numbers.b[j]
        point = jax.tree.map(lambda v, u, w, a=a, b=b: np.asarray(v) + a * u + b * w, network, numbers.u, numbers.w)
        np.testing.assert_allclose(numbers.cost[i, j], cost_of(point, x, y), rtol=1e-12)
        np.testing.assert_allclose(project(found, point), (a, b), atol=1e-12)
    u, w = flatten(numbers.u), flatten(numbers.w)
    np.testing.assert_allclose([u @ u, w @ w, u @ w], [1, 1, 0], atol=1e-12)


def test_a_slice_through_three_points_contains_them(x64):
    points = [jnp.array(p) for p in ((0.0, 0.0, 0.0), (1.0, 2.0, 0.0), (0.0, 1.0, 3.0))]
    found = cost_slice(lambda v: jnp.sum(v**2), points[0], through=tuple(points[1:]), resolution=7)
    project, plane = jax.jit(CostSlice.project), jax.tree.map(np.asarray, found)
    for point in points:
        a, b = map(np.asarray, project(found, point))
        np.testing.assert_allclose(plane.origin + a * plane.u + b * plane.w, point, atol=1e-12)
        assert plane.a[0] < a < plane.a[-1]
        assert plane.b[0] < b < plane.b[-1]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sharpness(lambda v: v, jnp.ones(2)), ShapeError, "sharpness: the cost must return one real scalar"),
        (lambda: sharpness(jnp.sum, jnp.array([1, 2])), DtypeError, "real floating point"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), 3), RangeError, "k"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), 0), RangeError, "k"),
        (lambda: sharpness(jnp.sum, jnp.ones(2), start=jnp.ones(3)), ShapeError, "sharpness: start must be"),
        (lambda: hessian_vector_product(jnp.sum, jnp.ones(2), jnp.ones(3)), ShapeError, "u must be"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), "sideways"), RangeError, "directions"),
        (lambda: cost_slice(jnp.sum, jnp.ones(1)), ShapeError, "two variables"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), (jnp.ones(2), jnp.ones(2))), RangeError, "must span a plane"),
        (
            lambda: cost_slice(jnp.sum, jnp.ones(2), through=(jnp.zeros(2), -jnp.ones(2))),
            RangeError,
            "points of through",
        ),
        (
            lambda: cost_slice(jnp.sum, jnp.ones((1, 2)), through=(jnp.zeros((3, 2)),) * 2),
            ShapeError,
            "a point of through",
        ),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), resolution=1), RangeError, "resolution"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), 3), ShapeError, "directions must be two trees"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), (jnp.ones(2), "x")), DtypeError, "each direction must be an array"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), through=(jnp.ones(2),)), ShapeError, "through must be two trees"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), span="x"), DtypeError, "span must be one real number"),
        (lambda: cost_slice(jnp.sum, jnp.ones(2), key=0), DtypeError, "key must be a random key"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), key=0), DtypeError, "key must be a random key"),
        (lambda: eigenpairs(3, jnp.ones(2)), DtypeError, "cost must be a function"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), which="SM"), RangeError, "which must be 'LA' or 'SA', got 'SM'"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), args=[1.0]), DtypeError, "args must be a tuple"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), rtol="x"), DtypeError, "rtol must be one real number"),
        (lambda: eigenpairs(jnp.sum, jnp.ones(2), rtol=-1), RangeError, "rtol must be at least 0"),
        (lambda: sharpness(jnp.sum, np.ma.ones(2)), DtypeError, "got MaskedArray"),
        (lambda: sharpness(jnp.sum, jnp.ones(2), start=jnp.ones(2, int)), DtypeError, "start must be real"),
        (lambda: hessian_vector_product(jnp.sum, jnp.ones(2), "x"), DtypeError, "u must be an array of floats"),
    ],
)
def test_bad_arguments_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "d", [np.r_[-1e4 * np.ones(3000), np.linspace(0, 1e-2, 5)], np.r_[-1e3 * np.ones(3003), 1e-2, 0]]
)
def test_an_eigenvalue_hidden_by_rounding_is_not_converged(d):
    """In float32, eigenvalues of −1e4 or −1e3 hide the largest one, 1e-2. A wrong value must not count as converged."""
    d = jnp.asarray(d, jnp.float32)
    found = sharpness(diagonal, jnp.zeros(d.size, jnp.float32), args=(d,), max_products=100)
    assert not bool(found.converged) or abs(found.value - 1e-2) < 1e-5


@pytest.mark.parametrize("scale", [1e25, 1e-22])
def test_sharpness_of_huge_and_tiny_curvature_converges(scale):
    d = jnp.asarray(scale * np.linspace(0.0, 1.0, 40), jnp.float32)
    found = sharpness(diagonal, jnp.zeros(40), args=(d,))
    assert bool(found.converged)
    assert found.value == pytest.approx(scale, rel=1e-4)


@pytest.mark.parametrize("point", [(0.0, 1.0), (1e9, 1.0)], ids=["pole", "overflow"])
def test_a_hessian_that_is_not_finite_does_not_converge(point):
    """√v has curvature −∞ at 0. eᵛ overflows at 10⁹."""
    found = sharpness(lambda v: jnp.sum(jnp.sqrt(v)) + jnp.sum(jnp.exp(v)), jnp.array(point))
    assert not found.converged


def test_a_start_of_zeros_is_ignored():
    found = sharpness(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2), start=jnp.zeros(2))
    assert bool(found.converged)
    assert found.value == pytest.approx(6, rel=1e-5)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("directions", "error", "words"),
    [
        ("gradient", RangeError, "must span a plane"),
        (
            (jnp.ones(1), jnp.ones(3)),
            ShapeError,
            r"each direction must be a tree like v, float32\[3\], got float32\[1\]",
        ),
    ],
    ids=["gradient of zero", "another shape"],
)
def test_bad_directions_are_refused(directions, error, words):
    with pytest.raises(error, match=words):
        cost_slice(lambda v: jnp.sum(v**2), jnp.zeros(3), directions)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("parts", "checked", "words"),
    [
        (lambda v, x: _part(v, x), True, r"the cost must be equal .* varies over 'd'(?s:.*)pmean"),
        (lambda v, x: jax.lax.pmean(_part(v, x), "d"), False, "needs check_vma=True, got False"),
    ],
    ids=["no pmean", "check_vma=False"],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda cost, v, x: sharpness(cost, v, args=(x,)).value,
        lambda cost, v, x: hessian_vector_product(cost, v, v, (x,)),
        lambda cost, v, x: Descent(cost, gradient_descent(0.1)).init(v, x).cost,
        lambda cost, v, x: minimize(cost, v, gradient_descent(0.1), args=(x,), max_steps=1).v,
    ],
    ids=["sharpness", "hessian_vector_product", "Descent", "minimize"],
)
def test_inside_shard_map_a_cost_with_a_wrong_gradient_is_refused(call, parts, checked, words):
    """Without the error, the gradient would be the sum over all devices, or that of one device."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P(), P("d")), "out_specs": P(), "check_vma": checked}
    inside = jax.shard_map(functools.partial(call, parts), mesh=mesh, **specs)
    with pytest.raises(RangeError, match="inside jax.shard_map, " + words if checked else words):
        jax.eval_shape(inside, jnp.ones(2), jnp.ones(4))


def test_inside_shard_map_the_direction_may_be_equal_on_all_devices():
    """v is divided among the devices, and u is not.

    JAX differentiates a loop only if v and u vary over the same axes.
    """
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))

    def product(v, u):
        cost = lambda v: jax.lax.pmean(jnp.sum(jax.lax.fori_loop(0, 2, lambda _, s: s * v, v)), "d")  # noqa: E731
        return hessian_vector_product(cost, v, u)

    inside = jax.shard_map(product, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
    np.testing.assert_allclose(inside(jnp.arange(3.0), jnp.ones(3)), [0, 6, 12])


def _part(v, x):
    return jnp.mean(x) * jnp.sum(v**2)

"""`jaxgd.plot`: the numbers in the figures. No figure is shown or written."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import jaxgd
from jaxgd.named_costs import rosenbrock, valley
from jaxgd.report import landscape

FULL = landscape._POINTS
DESCENT = jaxgd.gradient_descent(0.1)


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Draw coarse grids, which are faster."""
    monkeypatch.setattr(landscape, "_POINTS", (101, 31))


@pytest.fixture(scope="module")
def run():
    """Return the solution after 40 updates in the book's valley, which are too few to converge."""
    return jaxgd.minimize(valley, jnp.ones(2), DESCENT, max_steps=40, record=jaxgd.Record(v=True))


def changed(solution, **new):
    """Return a copy of a named tuple or dataclass, with new values for some fields."""
    return type(solution)(**{name: getattr(solution, name) for name in type(solution).__annotations__} | new)


def path_of(v, cost):
    """Return a trajectory through points v, (k, n)."""
    nothing = jnp.zeros(len(v))
    heights = jax.vmap(cost)(v)
    return jaxgd.Trajectory(jnp.arange(len(v)), heights, nothing, nothing, nothing, nothing, v, None, None, None)


def marks(axes):
    """Return the points of each kind of marker."""
    kinds = [(c.get_label(), getattr(c, "_offsets3d", None) or c.get_offsets().T) for c in axes.collections]
    return {label: np.array(points) for label, points in kinds if not label.startswith("_")}


def test_curves_end_at_the_end_of_the_run(run):
    cost, gradient = jaxgd.plot(run)
    for axes, values, end in ((cost, run.trajectory.cost, run.cost), (gradient, run.trajectory.gradient_norm, 0)):
        (line,) = axes.get_lines()
        np.testing.assert_array_equal(line.get_xdata(), [*range(41), 40])
        np.testing.assert_allclose(line.get_ydata(), [*values, end or values[-1]], rtol=1e-6)
        assert axes.get_yscale() == "log"
    title = cost.figure.get_suptitle()
    assert title == f"not converged: out of steps after 40 updates, C = {float(run.cost):.3g}"
    pyplot.close(cost.figure)
    converged = changed(run, outcome=jaxgd.Outcome(jnp.array(3)))
    assert jaxgd.plot(converged, figure=Figure())[0].figure.get_suptitle().startswith("converged after 40 updates")


@pytest.mark.parametrize(
    ("costs", "scale"),
    [([3.0, 2, 1], "linear"), ([100.0, 1], "log"), ([100.0, 1, 0], "log"), ([100.0, 1, -1], "linear")],
)
def test_the_axis_is_logarithmic_where_costs_span_decades(costs, scale):
    path = path_of(jnp.array(costs)[:, None], lambda v: v[0])
    cost, _ = jaxgd.plot(path, figure=Figure())
    assert cost.get_yscale() == scale


def test_a_batch_gives_one_line_per_element(run):
    two = jax.tree.map(lambda x: jnp.stack([x, x]), run)
    # In the batch, the second run ends after 7 updates.
    two = changed(two, steps=jnp.array([40, 7]))
    cost, gradient = jaxgd.plot(two, figure=Figure())
    assert [len(line.get_xdata()) for line in cost.get_lines()] == [42, 9]
    assert [text.get_text() for text in gradient.get_legend().get_texts()] == ["0", "1"]
    assert cost.figure.get_suptitle() == "0 of 2 runs converged or completed"


def test_a_recorded_sharpness_is_drawn_with_its_threshold(run):
    path = changed(run.trajectory, sharpness=jnp.full(41, 2.0), stability=jnp.full(41, 20.0))
    *_, axes = jaxgd.plot(path, figure=Figure())
    assert [(line.get_label(), line.get_ydata()[0]) for line in axes.get_lines()] == [("λ_max", 2), ("2/η", 20)]


def test_markers_are_at_the_height_of_the_cost_on_a_linear_axis(run):
    # The picture must be wide enough to show a minimum far from the path.
    surface, contours = jaxgd.plot(run, cost=valley, minima=[(-2.0, 0.5)], figure=Figure())
    expected = {"start": [[1], [1], [2]], "end": [*run.v[:, None], [run.cost]], "known minimum": [[-2], [0.5], [4.25]]}
    for label, point in expected.items():
        np.testing.assert_array_equal(marks(surface)[label], point)
        np.testing.assert_array_equal(marks(contours)[label], point[:2])
    # The drawn path lies on the surface, except for the interpolation between grid points.
    x, y, z = (np.array(values) for values in surface.get_lines()[0].get_data_3d())
    np.testing.assert_allclose(z, x**2 + y**2, atol=0.01)


def test_markers_are_at_the_height_of_the_cost_on_a_logarithmic_axis(run):
    path = path_of(jnp.array([[-1.2, 1.0], [0.0, 0.0], [0.9, 0.8]]), rosenbrock)
    surface, _ = jaxgd.plot(path, cost=rosenbrock, minima=[jnp.ones(2)], figure=Figure())
    ticks = {text.get_text(): z for text, z in zip(surface.get_zticklabels(), surface.get_zticks(), strict=True)}
    assert ticks["0"] == 0
    floor = 100 / (10 ** ticks["100"] - 1)
    for label, cost in (("start", 24.2), ("end", 100 * 0.01**2 + 0.01), ("known minimum", 0)):
        np.testing.assert_allclose(marks(surface)[label][2], np.log10(1 + cost / floor), rtol=1e-5)


def test_the_balls_of_a_page_are_centered_on_the_surface(run):
    page = jaxgd.plot(run, cost=valley, interactive=True)
    surface, *balls = (trace for trace in page.data if trace.type == "surface")
    np.testing.assert_allclose(surface.z, np.add.outer(surface.y**2, surface.x**2), rtol=1e-5)
    assert [ball.name for ball in balls] == ["start", "end"]
    for ball, point in zip(balls, ([1, 1, 2], [*run.v, run.cost]), strict=True):
        center = [(values.min() + values.max()) / 2 for values in (ball.x, ball.y, ball.z)]
        np.testing.assert_allclose(center, point, atol=1e-6)


@pytest.mark.parametrize("interactive", [False, True])
def test_one_variable_gives_a_curve(interactive):
    """The cost may return a pair (C, aux)."""
    cost = lambda v: (v["x"] ** 4 - v["x"], "aux")  # noqa: E731
    path = path_of({"x": jnp.array([1.0, 0.7])}["x"][:, None], lambda v: v[0] ** 4 - v[0])
    path = changed(path, v={"x": jnp.array([1.0, 0.7])})
    drawn = jaxgd.plot(path, cost=cost, interactive=interactive, figure=None if interactive else Figure())
    if interactive:
        (curve, line, *_), name = drawn.data, drawn.layout.xaxis.title.text
        x, y, ends = curve.x, curve.y, (line.x, line.y)
    else:
        (axes,) = drawn
        (curve, line), name = axes.get_lines(), axes.get_xlabel()
        (x, y), ends = curve.get_data(), line.get_data()
    assert name == "v['x']"
    np.testing.assert_allclose(y, x**4 - x, atol=1e-5)
    np.testing.assert_allclose(ends, [[1, 0.7], [0, 0.7**4 - 0.7]], atol=1e-6)


@pytest.mark.parametrize(
    ("cost", "scale"),
    [(lambda v: jnp.exp(4 * v[0] ** 2), "log"), (lambda v: v[0] ** 2 + 1e-12, "linear")],
    ids=["at least 1", "down to 1e-12"],
)
def test_a_curve_has_a_logarithmic_axis_if_that_gives_no_cusp(cost, scale):
    (axes,) = jaxgd.plot(path_of(jnp.array([[1.0], [0.0]]), cost), cost=cost, figure=Figure())
    assert axes.get_yscale() == scale


def bowl(v):
    return jnp.sum(v**2 * jnp.linspace(1, 2, 10))


# A path in a plane in ten dimensions. The plane does not contain 0.
PLANE = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 2)))[0].T
FLAT = np.array([[3.0, 1.0], [1.0, -0.5], [0.4, 0.2], [0.1, 0.0]])
PATH = jnp.asarray(FLAT @ PLANE + 0.3, jnp.float32)


@pytest.mark.parametrize("through", [None, (PATH[0], PATH[1])], ids=["components", "points"])
def test_a_path_in_a_plane_keeps_its_distances(through):
    surface, contours = jaxgd.plot(path_of(PATH, bowl), cost=bowl, through=through, figure=Figure())
    drawn = np.array(contours.get_lines()[0].get_data()).T
    distances = [np.linalg.norm(x[:, None] - x, axis=-1) for x in (drawn, FLAT)]
    np.testing.assert_allclose(*distances, atol=1e-5)
    # The scale is linear, and the whole path is in the plane.
    start, end = (marks(surface)[label][2, 0] for label in ("start", "end"))
    np.testing.assert_allclose([start, end], [bowl(PATH[0]), bowl(PATH[-1])], rtol=1e-5)
    assert "10 variables" in surface.figure.get_suptitle()


def test_a_straight_path_keeps_its_length_and_is_horizontal():
    _, contours = jaxgd.plot(path_of(PATH[:2], bowl), cost=bowl, figure=Figure())
    (x0, x1), (y0, y1) = contours.get_lines()[0].get_data()
    np.testing.assert_allclose([x1 - x0, y1 - y0], [np.linalg.norm(FLAT[1] - FLAT[0]), 0], atol=1e-5)


def test_a_slice_is_drawn_without_a_path():
    grid = jnp.arange(12.0).reshape(3, 4) + 20
    plane = jaxgd.CostSlice(jnp.arange(3.0), jnp.arange(4.0), grid, jnp.zeros(2), jnp.eye(2)[0], jnp.eye(2)[1])
    _, contours = jaxgd.plot(plane, figure=Figure())
    assert contours.get_xlim() == (0, 2)
    assert contours.get_ylim() == (0, 3)
    (surface,) = (trace for trace in jaxgd.plot(plane, interactive=True).data if trace.type == "surface")
    np.testing.assert_array_equal(surface.z.T, grid)


def test_contours_of_a_narrow_valley_do_not_break_into_islands(monkeypatch):
    """The region below each contour of Rosenbrock's function is one band.

    The edges of the picture cut the contour into at most three pieces.
    """
    monkeypatch.setattr(landscape, "_POINTS", FULL)
    path = path_of(jnp.array([[-1.2, 1.0], [1.0, 1.0]]), rosenbrock)
    _, contours = jaxgd.plot(path, cost=rosenbrock, figure=Figure())
    _, lines = contours.collections[:2]
    assert len(lines.levels) > 15
    assert max(len(segments) for segments in lines.allsegs) == 3


@pytest.mark.parametrize("sign", [1, -1], ids=["rises", "falls"])
def test_a_path_is_cut_where_it_leaves_the_valley(sign):
    cost = lambda v: sign * valley(v)  # noqa: E731
    path = path_of(jnp.array([[1.0, 1.0], [-1.0, 2.0], [100.0, 5.0], [1e4, 7.0], [1e19, 7.0]]), cost)
    _, contours = jaxgd.plot(path, cost=cost, figure=Figure())
    np.testing.assert_array_equal(contours.get_lines()[0].get_xdata(), [1, -1, 100])
    assert "first point far from the start" in marks(contours)


def test_a_long_fall_that_ends_with_a_small_decrease_is_not_cut():
    path = path_of(jnp.array([[1.0], [0.999], [-5e3], [-5.1e3]]), lambda v: 1e-3 * v[0])
    (axes,) = jaxgd.plot(path, cost=lambda v: 1e-3 * v[0], figure=Figure())
    assert len(axes.get_lines()[1].get_xdata()) == 4


BAD = {
    "an integer": (lambda run: jaxgd.plot(3), jaxgd.DtypeError, "Sweep, TrainResult, History, Assessment, got int"),
    "a run without a path": (
        lambda run: jaxgd.plot(changed(run, trajectory=None)),
        jaxgd.RangeError,
        "without record=None",
    ),
    "a path without v": (
        lambda run: jaxgd.plot(changed(run, trajectory=changed(run.trajectory, v=None)), cost=valley),
        jaxgd.RangeError,
        r"record=jaxgd\.Record\(v=True\)",
    ),
    "a batch of runs": (
        lambda run: jaxgd.plot(jax.tree.map(lambda x: x[None], run), cost=valley),
        jaxgd.ShapeError,
        r"batch of shape \(1,\)\.\nTake one element",
    ),
    "a path of NaN": (
        lambda run: jaxgd.plot(path_of(jnp.full((2, 2), jnp.nan), valley), cost=valley),
        jaxgd.RangeError,
        "no point of the path is finite",
    ),
    "a cost that is not a function": (lambda run: jaxgd.plot(run, cost=3), jaxgd.DtypeError, "cost must be a function"),
    "a cost with two values": (lambda run: jaxgd.plot(run, cost=jnp.sin), jaxgd.ShapeError, "one real scalar"),
    "a minimum of another size": (
        lambda run: jaxgd.plot(run, cost=valley, minima=[(1, 2, 3)]),
        jaxgd.ShapeError,
        r"minima must have 2 variables, got \[3\]",
    ),
    "minima that are one number": (
        lambda run: jaxgd.plot(run, cost=valley, minima=jnp.array(1.0)),
        jaxgd.ShapeError,
        "minima must be a list of points",
    ),
    "minima of text": (
        lambda run: jaxgd.plot(run, cost=valley, minima=["ab"]),
        jaxgd.DtypeError,
        "minima must be an array of numbers",
    ),
    "traced minima": (
        lambda run: jax.jit(lambda v: jaxgd.plot(run, cost=valley, minima=[v]))(run.v),
        jaxgd.DtypeError,
        "outside jit",
    ),
    "through=, two variables": (
        lambda run: jaxgd.plot(run, cost=valley, through=(run.v, run.v)),
        jaxgd.RangeError,
        "more than two variables, got 2",
    ),
    "through=, three points on one line": (
        lambda run: jaxgd.plot(path_of(PATH, bowl), cost=bowl, through=(PATH[0], 2 * PATH[0] - PATH[-1])),
        jaxgd.RangeError,
        "must not be on one line",
    ),
    "minima without a cost": (
        lambda run: jaxgd.plot(run, minima=[run.v]),
        jaxgd.RangeError,
        "without cost takes no minima",
    ),
    "a cost for a slice": (
        lambda run: jaxgd.plot(jaxgd.CostSlice(*(jnp.zeros((2, 2)),) * 6), cost=valley),
        jaxgd.RangeError,
        "a CostSlice takes no cost",
    ),
    "interactive without a cost": (
        lambda run: jaxgd.plot(run, interactive=True),
        jaxgd.RangeError,
        "takes no interactive",
    ),
    "figure=3": (lambda run: jaxgd.plot(run, figure=3), jaxgd.DtypeError, "figure must be a Figure"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_reason(run, name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as caught:
        call(run)
    assert str(caught.value).startswith("plot: ")


@pytest.mark.parametrize(("library", "interactive"), [("matplotlib", False), ("plotly", True)])
def test_the_error_for_a_missing_library_says_how_to_install_it(run, monkeypatch, library, interactive):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(jaxgd.MissingDependencyError, match=rf"expected {library} .*\n.*pip install -e '\.\[plot\]'"):
        jaxgd.plot(run, cost=valley, interactive=interactive)

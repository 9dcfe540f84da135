"""`plot`, which draws a result."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxgd.assessment import Assessment
from jaxgd.descent import Solution, Trajectory
from jaxgd.errors import DtypeError, RangeError, ShapeError, describe, require_bool
from jaxgd.history import History, TrainResult
from jaxgd.report import assessment, history, landscape, page, sweep, valley
from jaxgd.report.curves import Floats, Line, curves
from jaxgd.report.figure import Axes, FigureBase, require_library
from jaxgd.slices import CostSlice
from jaxgd.sweeps import Sweep
from jaxgd.typed import Tree, tree_leaves

_LEGEND = 10  # elements of a batch; a larger batch has no legend


def plot(
    result: object,
    *,
    cost: Callable[..., object] | None = None,
    args: tuple[object, ...] = (),
    minima: Sequence[object] = (),
    through: tuple[object, object] | None = None,
    images: ArrayLike | None = None,
    interactive: bool = False,
    figure: FigureBase | None = None,
) -> Any:
    """Draw a result: a descent, a cost around its path, a slice of a cost, a training run, a sweep or an assessment.

    Needs matplotlib, or plotly with `interactive=True`. To install both, run `pip install -e '.[plot]'` in the folder
    of jaxgd's sources.

    - A Solution or a Trajectory without `cost`: C and ‖∇C‖ over the updates. A single run also shows λ_max and 2/η if
      it recorded them. A batch gives one line per element. An axis is logarithmic if no value is negative and the
      positive values span two decades or more.
    - A Solution or a Trajectory with `cost`: C around the path, as a curve over one variable, or as a surface and its
      contours over two variables. A path of more variables is projected onto a plane, and the picture shows C on this
      plane. The run needs `record=Record(v=True)`.
    - A CostSlice: its surface and its contours.
    - A Sweep: the median and the quartiles of the last accuracy against η, one line per network size. Below them, the
      share of networks that diverged, saturated or stayed unchanged. The plot shows the first known accuracy in the
      order validation, test, training. Its axis is logarithmic in the error if the errors span a decade.
    - A TrainResult or a History: C and the accuracy over the epochs, for the training, the validation and the test
      examples, and each value of `record`. For the TrainResult of a single run, a point marks the best network if the
      run kept track of it. A batch gives one line per element, for only one kind of
      examples: the first known in the order validation, test, training.
    - An Assessment: the confusion matrix, blue for right and orange for wrong answers. With `images`, also the most
      confident mistakes, each with its index, its label, the answer and the activation of the answer.

    Args:
        result: A Solution, a Trajectory, a CostSlice, a Sweep, a TrainResult, a History or an Assessment.
        cost: The cost that was minimized, which may return (C, aux). It is evaluated on a grid of 301² points, or of
            1,001 points for one variable. By default none: the plot of a descent then shows C and ‖∇C‖.
        args: Further arguments of the cost; by default none.
        minima: Known minima to mark, trees like v; by default none.
        through: Two points, trees like v, that span the plane together with the end of the path. Needs more than two
            variables. By default, the first two principal components of the path, relative to its end, span the plane.
        images: The images of an Assessment, (n, height, width); by default none.
        interactive: True for a plotly figure of the curve or the surface, which the reader can rotate and zoom.
            Default: False.
        figure: A matplotlib Figure or SubFigure to draw in; by default a new one of pyplot.

    Returns:
        A tuple of matplotlib axes, one per panel, row by row. With `interactive=True`, the plotly figure.

    Raises:
        DtypeError: If result, cost, args, images, interactive or figure has the wrong type, a given point is traced, or
            figure is given with `interactive=True`.
        ShapeError: If the cost is not one real scalar, a point does not have the size of v, through is not two points,
            minima is not a list of points, a batch is given with `cost`, a CostSlice is a batch, or images does not
            have one image for each example of the Assessment.
        RangeError: If the path or its v was not recorded, no value to draw is finite, the three points of a plane are
            on one line, or an option does not apply.
        MissingDependencyError: If matplotlib or plotly is not installed.

    Source: Li et al., NeurIPS 2018, section 7, for the plane of the principal components.

    Example:
        >>> import jax.numpy as jnp; from matplotlib.figure import Figure; from jaxgd import cost_slice
        >>> plane = cost_slice(lambda v: jnp.sum(v**2), jnp.ones(2), resolution=9)
        >>> surface, contours = plot(plane, figure=Figure())
        >>> contours.get_xlabel()
        'a'
    """
    given: dict[str, object] = {
        name: value
        for name, value, default in (
            ("args", args, ()), ("minima", minima, ()), ("through", through, None),
            ("images", images, None), ("interactive", interactive, False), ("figure", figure, None),
        )
        if value is not default
    }  # fmt: skip
    require_bool("plot", "interactive", interactive)
    if figure is not None and (interactive or not hasattr(figure, "add_subplot")):
        raise DtypeError(
            f"plot: figure must be a Figure of matplotlib, with interactive=False, got {describe(figure)}."
        )
    for kind, (draw, draw_with_cost) in _PLOTS.items():
        if isinstance(result, kind):
            if cost is not None:
                draw, given = draw_with_cost or draw, given | {"cost": cost}
            unfit = [name for name in given if name not in inspect.signature(draw).parameters]
            if unfit:
                article = "an" if kind.__name__[0] in "AEIOU" else "a"
                name = f"{article} {kind.__name__}" + (" without cost" if draw_with_cost and cost is None else "")
                raise RangeError(f"plot: {name} takes no {unfit[0]}.\nLeave out {unfit[0]}.")
            require_library("plot", "plotly" if interactive else "matplotlib")
            return draw(result, **given)
    names = ", ".join(kind.__name__ for kind in _PLOTS)
    raise DtypeError(f"plot: result must be one of {names}, got {describe(result)}.")


def _draw_curves(result: Solution | Trajectory, *, figure: FigureBase | None = None) -> tuple[Axes, ...]:
    path, solution = _parts(result)
    return curves(_panels(path, solution), "updates", _words(solution), figure)


def _draw_path(
    result: Solution | Trajectory,
    *,
    cost: Callable[..., object],
    args: tuple[object, ...] = (),
    minima: Sequence[object] = (),
    through: tuple[object, object] | None = None,
    interactive: bool = False,
    figure: FigureBase | None = None,
) -> object:
    path, solution = _parts(result)
    if np.ndim(path.cost) != 1:
        raise ShapeError(
            f"plot: with a cost, expected one run, got a batch of shape {np.shape(path.cost)[:-1]}.\n"
            "Take one element, as in jax.tree.map(lambda x: x[0], solution)."
        )
    if path.v is None:
        raise RangeError(
            "plot: with a cost, expected a path with v, got none.\nMinimize with record=jaxgd.Record(v=True)."
        )
    v, costs = path.v, np.asarray(path.cost, float)
    if solution is not None:
        # The recorded points do not always include the end of the run.
        v = jax.tree.map(lambda xs, x: np.concatenate([np.asarray(xs), np.asarray(x)[None]]), v, solution.v)
        costs = np.append(costs, float(solution.cost))
    drawn = landscape.of_path(v, costs, cost, args, minima, through)
    return _draw_landscape(drawn, _words(solution), interactive, figure)


def _draw_slice(plane: CostSlice, *, interactive: bool = False, figure: FigureBase | None = None) -> object:
    if np.ndim(plane.cost) != 2:
        raise ShapeError(f"plot: the cost of a CostSlice must be (m, n), got {describe(plane.cost)}.")
    return _draw_landscape(landscape.of_slice(plane), "cost on a plane", interactive, figure)


# Two functions for each type of result: the first draws it without a cost, the second with a cost. `plot` accepts only
# the keywords of the chosen function as options.
_PLOTS: dict[type, tuple[Callable[..., object], Callable[..., object] | None]] = {
    Solution: (_draw_curves, _draw_path),
    Trajectory: (_draw_curves, _draw_path),
    CostSlice: (_draw_slice, None),
    Sweep: (sweep.draw, None),
    TrainResult: (history.draw, None),
    History: (history.draw, None),
    Assessment: (assessment.draw, None),
}


def _parts(result: Solution | Trajectory) -> tuple[Trajectory, Solution | None]:
    """Return the path, and the solution if it is known."""
    if isinstance(result, Trajectory):
        return result, None
    if result.trajectory is None:
        raise RangeError("plot: the solution must have a path, got None.\nMinimize without record=None.")
    return result.trajectory, result


def _draw_landscape(drawn: landscape.Landscape, title: str, interactive: bool, figure: FigureBase | None) -> object:
    title = "\n".join(line for line in (title, drawn.note) if line)
    return page.draw(drawn, title) if interactive else valley.draw(drawn, title, figure)


def _words(solution: Solution | None) -> str:
    """Return the outcome in words, such as "converged after 12 updates, C = 3.1e-10"."""
    if solution is None:
        return ""
    outcome = solution.outcome
    if np.ndim(outcome.code):
        return f"{int(np.sum(outcome.ok)):,} of {np.size(outcome.code):,} runs converged or completed"
    words = f"{outcome.message.split(':')[0]} after {int(solution.steps):,} updates, C = {float(solution.cost):.3g}"
    return words if outcome.ok else f"not converged: {words}"


def _panels(path: Trajectory, solution: Solution | None) -> list[tuple[str, list[Line]]]:
    """Return a panel of C and one of ‖∇C‖. A single run also has a panel of λ_max and 2/η if it recorded them."""
    batch = np.shape(path.cost)[:-1]
    few = 0 < math.prod(batch) <= _LEGEND and bool(batch)
    columns = {"cost C": path.cost, "length of the gradient, ‖∇C‖": path.gradient_norm}
    ends: list[Floats] = (
        [] if solution is None else [np.asarray(solution.cost, float), _lengths(solution.gradient, len(batch))]
    )
    panels: list[tuple[str, list[Line]]] = [(name, []) for name in columns]
    steps = np.broadcast_to(np.asarray(path.step), np.shape(path.cost))
    for element in np.ndindex(batch):
        for i, (name, lines) in enumerate(panels):
            x: NDArray[np.number] = steps[element]
            y: Floats = np.asarray(columns[name], float)[element]
            if solution is not None:
                # Drop the unfilled rows after the end of the run. The end may not be recorded, so append it.
                last = int(np.asarray(solution.steps)[element])
                x, y = np.append(x[x <= last], last), np.append(y[x <= last], ends[i][element])
            lines.append((x, y, ", ".join(map(str, element)) if few else ""))
    if path.sharpness is not None and path.stability is not None and not batch:
        known = {"λ_max": path.sharpness, "2/η": path.stability}
        lines = [(steps, np.asarray(values, float), name) for name, values in known.items()]
        panels.append(("largest eigenvalue of the Hessian", lines))
    return panels


def _lengths(gradient: Tree, batch: int) -> Floats:
    """Return the length of the gradient of each element of a batch with `batch` axes."""
    parts = [np.asarray(x, float) for x in tree_leaves(gradient)]
    # The square of a number may overflow, so use hypot.
    together = np.concatenate([x.reshape(*x.shape[:batch], -1) for x in parts], axis=-1)
    return np.asarray(np.hypot.reduce(together, axis=-1))

"""f in the user's dtype: the consistency of f between eager, jit and vmap, and the noise of the gradient of f."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxgd.gradcheck.dtypes import eps_of
from jaxgd.gradcheck.judge import NOISES
from jaxgd.gradcheck.lanes import Lanes, single
from jaxgd.gradcheck.problem import Problem
from jaxgd.gradcheck.programs import Outputs, Reverse
from jaxgd.gradcheck.report import Cause, Consistency, Verdict

# Two runs are inconsistent if they differ by more than min(1000 eps, 0.5) plus 30 × noise, relative. The noise is the
# change when the point moves by one rounding: a factor of 1 + eps or 1 − eps for each element.
_ROUNDINGS = 1e3


@dataclasses.dataclass
class Native:
    """f and its gradient in the user's dtype.

    Attributes:
        outputs: The values of f.
        gradient: The gradient by autodiff, or None if JAX cannot trace or differentiate f.
        noise: For each leaf, the largest change of any element of its gradient when the point moves by one rounding.
        consistency: Comparisons between the ways to run f.
        vmap_differs: True if f or its gradient differs under vmap.
        value_noise: The largest relative change of an output of f when the point moves by one rounding.
    """

    outputs: list[Any]
    gradient: list[np.ndarray] | None
    noise: list[float]
    consistency: list[Consistency]
    vmap_differs: bool = False
    value_noise: float = 0.0

    @property
    def one_function(self) -> bool:
        """True if all comparisons agree except those with vmap.

        They are two eager runs of f, eager and jit, f and its value under `jax.vjp`, and two runs of autodiff.
        """
        return all(c.verdict is Verdict.RIGHT for c in self.consistency if "vmap" not in c.name)


def jittered(v: Sequence[Any], rng: np.random.Generator, n: int = 2) -> list[list[np.ndarray]]:
    """Return the point, then n points moved by one rounding: x(1 + eps) or x(1 − eps) at random for each element."""
    points = [[np.asarray(x) for x in v]]
    for _ in range(n):
        moved = []
        for x in points[0]:
            eps = eps_of(x.dtype)
            factor = 1 + eps * rng.choice([-1.0, 1.0], x.shape)
            with np.errstate(over="ignore", invalid="ignore"):
                moved.append(np.asarray(x * factor.astype(np.real(x).dtype), x.dtype))
        points.append(moved)
    return points


def stacked(points: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Return the points as one list of stacked leaves."""
    return [np.stack(xs) for xs in zip(*points, strict=True)]


def run_natively(
    problem: Problem,
    v: list[Any],
    traced: list[Any],
    w: list[Any],
    eager: tuple[list[np.ndarray], list[np.ndarray]],
    eps: float,
    rng: np.random.Generator,
) -> Native:
    """Compare runs of f and of its gradient in the user's dtype.

    f runs under jit and vmap, its gradient twice under jit and once under vmap. `eager` holds two eager runs of f.
    """
    first, second = eager
    compare = _Comparison(eps)
    consistency = [compare("second run", Cause.NOT_DETERMINISTIC, first, second, np.zeros(len(first)))]
    fn: Callable[..., Any] = Reverse(problem)
    try:
        out, gradient = _numpy(single(fn, traced, (v, w)))
    except Exception:
        fn = Outputs(problem)
        try:
            out, gradient = _numpy(single(fn, traced, (v, w)))
        except Exception:
            # JAX cannot trace f, so it runs eagerly only.
            return Native(first, None, [], consistency)
    lanes = Lanes()
    points = stacked(jittered(v, rng))
    ws = [np.broadcast_to(np.asarray(x), (3, *np.shape(x))) for x in w]
    outs, gradients = lanes(fn, traced, (points, ws))
    f_noise = np.array([_distance([x[i] for x in outs], [x[0] for x in outs]) for i in (1, 2)]).max(axis=0)
    if fn == Reverse(problem):
        plain = _numpy(single(Outputs(problem), traced, (v, w)))[0]
        consistency.append(compare("eager = jit", Cause.NOT_ONE_FUNCTION, first, plain, f_noise))
        value = compare("f = its value under jax.vjp", Cause.OTHER_VALUE, plain, out, f_noise)
        wrong = value.verdict is not Verdict.RIGHT and all(c.verdict is Verdict.RIGHT for c in consistency)
        consistency.append(dataclasses.replace(value, verdict=Verdict.WRONG) if wrong else value)
    else:
        consistency.append(compare("eager = jit", Cause.NOT_ONE_FUNCTION, first, out, f_noise))
    vmapped = lanes.modes[fn] == "vmap"
    if vmapped:
        consistency.append(compare("jit = vmap", Cause.NOT_ONE_FUNCTION, out, [x[0] for x in outs], f_noise))
    noise: list[float] = []
    if gradient:
        again = _numpy(single(fn, traced, (v, w)))[1]
        g_noise = np.array([_distance([x[i] for x in gradients], [x[0] for x in gradients]) for i in (1, 2)]).max(
            axis=0
        )
        consistency.append(compare("autodiff's second run", Cause.NOT_DETERMINISTIC, gradient, again, g_noise))
        if vmapped:
            one = [x[0] for x in gradients]
            consistency.append(compare("autodiff's jit = vmap", Cause.NOT_ONE_FUNCTION, gradient, one, g_noise))
        noise = [float(a * _norm(g)) if np.isfinite(a) else math.inf for a, g in zip(g_noise, gradient, strict=True)]
    differs = any(c.verdict is not Verdict.RIGHT for c in consistency if "vmap" in c.name)
    return Native(out, gradient or None, noise, consistency, differs, float(np.max(f_noise, initial=0.0)))


@dataclasses.dataclass(frozen=True)
class _Comparison:
    eps: float

    def __call__(self, name: str, cause: Cause, a: list[Any], b: list[Any], noise: Any) -> Consistency:
        distance = _distance(b, a)
        # The limit of 0.5 keeps the comparison meaningful in dtypes of 8 bits.
        allowed = np.minimum(_ROUNDINGS * self.eps, 0.5) + NOISES * np.asarray(noise)
        good = bool(np.all(distance <= allowed))
        verdict = Verdict.RIGHT if good else Verdict.CANNOT_TELL
        return Consistency(name, verdict, Cause.AGREES if good else cause, float(np.max(distance, initial=0.0)))


def _distance(a: Sequence[Any], b: Sequence[Any]) -> np.ndarray:
    """Return ‖a − b‖/‖b‖ for each leaf, in the maximum norm over the elements that are finite in both.

    Return ‖a − b‖ if ‖b‖ is 0, and infinity if an element is finite in only one of them.
    """
    out = []
    for x, y in zip(a, b, strict=True):
        x, y = _wide(x), _wide(y)
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            out.append(np.inf)
            continue
        there = np.isfinite(y)
        largest = np.max(np.abs(y[there]), initial=0.0)
        off = np.max(np.abs(x[there] - y[there]), initial=0.0)
        out.append(off / largest if largest else off)
    return np.array(out)


def _norm(x: Any) -> float:
    x = _wide(x)
    return float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, complex if np.iscomplexobj(x) else float)


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)

"""Check the second derivative H, which is the derivative of ∇⟨w, f⟩, and the symmetry of H."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxgd.gradcheck import constants, core
from jaxgd.gradcheck.derive import rounding_of
from jaxgd.gradcheck.draws import directions, jittered, stacked
from jaxgd.gradcheck.problem import Numbers, Prepared, Problem, evaluation, upcast
from jaxgd.gradcheck.programs import bilinear
from jaxgd.gradcheck.report import Consistency, GradientReport
from jaxgd.gradcheck.run import single, traits
from jaxgd.gradcheck.verdicts import Cause, Verdict
from jaxgd.mesh.processes import on_host
from jaxgd.typed import jvp, tree_leaves, vjp


class Options(TypedDict):
    """Options of `check_gradients` that both orders share."""

    rtol: float | None
    nondeterminism: float
    seconds: float | None
    directions: int
    seed: int


def check_second_order(
    check: Callable[..., GradientReport],
    prepared: Prepared,
    meant: Problem,
    drawn: list[NDArray[Any]],
    options: Options,
) -> GradientReport:
    """Check the derivative of ∇⟨w, f⟩ with the function `check`, and check that H is symmetric.

    `meant` is f or the function passed as `reference`. `drawn` holds w. The derivative with respect to w is checked
    too: a custom rule may return the right value and block this derivative.
    """
    gradient = _gradient(prepared, prepared.problem)
    args = prepared.problem.args(prepared.v, prepared.traced)
    with evaluation(float64=False):
        outputs = prepared.problem(prepared.v, prepared.traced)
        w = [jnp.asarray(ct, y.dtype) for ct, y in zip(drawn, outputs, strict=True)]
    reference = None
    if meant != prepared.problem:
        reference = _gradient(prepared, meant)
    argnums = *prepared.argnums, len(args)
    report = check(gradient, *args, w, argnums=argnums, reference=reference, **options)
    # Drop two notes: the first-order report lists the fixed arguments, and second derivatives are checked here.
    notes = tuple(note for note in report.not_checked if not note.startswith(("held fixed", "second derivatives")))
    symmetric = _symmetry(gradient, prepared, w, options)
    return dataclasses.replace(report, consistency=(*report.consistency, *symmetric), not_checked=notes)


def has_reverse_mode(prepared: Prepared, problem: Problem, w: list[Array]) -> bool:
    """Return True if JAX can differentiate the problem in reverse mode."""
    try:
        with evaluation(float64=False):
            jax.eval_shape(_gradient(prepared, problem), *problem.args(prepared.v, prepared.traced), w)
    except Exception:
        return False
    return True


def _gradient(prepared: Prepared, problem: Problem) -> Callable[..., list[Array]]:
    """Return the function (*args, w) → ∇⟨w, f⟩. The args have the same names as in f."""

    def gradient(*args: object) -> list[Array]:
        *args_of_f, last = args
        w, leaves = tree_leaves(last), tree_leaves(tuple(args_of_f))
        v, traced = [leaves[i] for i in problem.varied], [leaves[i] for i in problem.traced]
        out, pullback = vjp(lambda v: problem(v, traced), v)
        return pullback([jnp.asarray(ct, y.dtype) for ct, y in zip(w, out, strict=True)])[0]

    gradient.__qualname__ = f"∇{prepared.name}"
    n = len(problem.args(prepared.v, prepared.traced))
    with contextlib.suppress(TypeError, ValueError):
        names = [*inspect.signature(prepared.problem.f.value).parameters][:n]
        named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in (*names, "cotangent")]
        gradient.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return gradient


def _symmetry(
    gradient: Callable[..., list[Array]], prepared: Prepared, w: list[Array], options: Options
) -> list[Consistency]:
    """Compare ⟨u, Hv⟩ with ⟨v, Hu⟩ for two random directions u and v.

    Return [] if JAX cannot compute Hu in forward mode, or if the comparison cannot decide.
    """
    rng = np.random.default_rng(options["seed"])
    problem = prepared.problem
    with evaluation(float64=True):
        x, traced, wide = upcast(prepared.v), upcast(prepared.traced), upcast(w)
        drawn = [directions(on_host(leaf), 3, rng) for leaf in x]
        u, v = ([jnp.asarray(d[i]) for d in drawn] for i in (0, 2))

        def products(shared: tuple[list[Array], ...], x: Sequence[Numbers]) -> tuple[Numbers, Numbers, Numbers]:
            traced, wide, u, v = shared

            def along(direction: list[Array]) -> list[Array]:
                return jvp(lambda x: gradient(*problem.args(x, traced), wide), (x,), (direction,))[1]

            hu, hv = along(u), along(v)
            return bilinear(u, hv), bilinear(v, hu), bilinear([jnp.abs(y) for y in u], [jnp.abs(y) for y in hv])

        try:
            shared = traced, wide, u, v
            eps = traits(lambda x: products(shared, x), x).eps
            points = stacked(jittered(x, rng, eps))
            each = np.stack(
                single(lambda *args: jax.lax.map(partial(products, args[0]), args[1]), shared, points), axis=1
            )
        except Exception:
            return []
    # The first row is for x, and the other two are for x moved by one rounding.
    rows: list[list[float]] = each.tolist()
    (a, b, size), *moved = rows
    if not np.isfinite(each).all() or size == 0:
        return []
    noise = constants.NOISES * max(abs(p - a) + abs(q - b) for p, q, _ in moved)
    floor = max(constants.FLOOR, options["nondeterminism"], rounding_of(eps))
    verdict, _ = core.agree(abs(a - b), noise, size, floor, options["rtol"])
    if verdict is Verdict.CANNOT_TELL:
        # The checks against quotients already report this uncertainty.
        return []
    cause = Cause.AGREES if verdict is Verdict.RIGHT else Cause.ASYMMETRIC
    return [Consistency("⟨u, Hv⟩ = ⟨v, Hu⟩", verdict, cause, abs(a - b) / size)]

"""`check_gradients`: run the comparisons of derivatives and make the report."""

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.errors import (
    RangeError,
    ShapeError,
    describe,
    require_bool,
    require_callable,
    require_count,
    require_real,
    shown,
)
from jaxgd.gradcheck.claims import Claim, claimed_gradient, claimed_jvp, claimed_vjp, require_values
from jaxgd.gradcheck.derive import derive
from jaxgd.gradcheck.dtypes import eps_of
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.lanes import Lanes
from jaxgd.gradcheck.measure import cotangents
from jaxgd.gradcheck.measure import directions as random_directions
from jaxgd.gradcheck.native import Native, run_natively
from jaxgd.gradcheck.precision import compare_natively
from jaxgd.gradcheck.problem import WHO, Prepared, in_float64, prepare, raised, with_outputs
from jaxgd.gradcheck.programs import Value, bilinear
from jaxgd.gradcheck.report import Cause, Check, Consistency, GradientReport, LeafReport, Verdict

# The smallest relative error that difference quotients in float64 resolve at best.
_LEAST_RTOL = 1e-9
# The cotangents for a scalar f. The first is 1, because it gives the gradient. The others have both signs and other
# sizes, because a wrong rule may treat them differently.
_SCALAR_COTANGENTS = (1.0, -0.6, 1.7, 0.3, -1.2)
_HIGHER = "second derivatives: order=2 checks them"


def check_gradients(
    f: Callable[..., Any],
    *args: Any,
    gradient: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    order: int = 1,
    rtol: float | None = None,
    directions: int = 3,
    seed: int = 0,
) -> GradientReport:
    """Check the derivatives of f at one point: right, wrong or cannot tell, for each leaf of the arguments.

    Let u be a random direction in one leaf, w a random cotangent of the result of f, J the Jacobian of f, and
    F(t) = ⟨w, f(x + t u)⟩. The check compares three values of F′(0):

    - ⟨Jᵀw, u⟩, by reverse mode;
    - ⟨w, Ju⟩, by forward mode;
    - the difference quotient (F(h) − F(−h))/2h, extrapolated to h → 0, with an estimate of its error.

    The check evaluates f in float64, for arguments of any dtype; x64 need not be enabled. It also compares each claimed
    derivative with autodiff directly, up to rounding.

    A verdict is relative to the leaf's own gradient and to the measured noise of f. The check searches the elements of
    a wrong leaf. The report lists the worst elements, and names the pattern of the error if the check recognizes one.

    Args:
        f: The function to check. It returns any pytree with at least one floating-point or complex leaf. Its exceptions
            pass through unchanged.
        *args: The point: the arguments of f, any pytrees with at least one floating-point or complex leaf. Leaves of
            other dtypes are held fixed.
        gradient: A gradient to check, for a scalar f: `gradient(*args)` must equal `jax.grad(f, argnums)(*args)`.
            Default: none.
        vjp: A reverse-mode derivative to check: `vjp(*args)` returns `(f(*args), pullback)`, as `jax.vjp(f, *args)`
            does. Default: none.
        jvp: A forward-mode derivative to check: `jvp(primals, tangents)` returns `(f(*primals), tangents of f)`, as
            `jax.jvp(f, primals, tangents)` does. Default: none.
        argnums: The position or positions of the arguments to differentiate, as in `jax.grad`. Default: the first
            argument if `gradient` is given, otherwise every argument.
        has_aux: True if f returns (value, aux), as in `jax.grad`. The check ignores aux: `gradient`, `vjp` and `jvp`
            return derivatives of the value only. Default False.
        order: 1 checks the first derivative. 2 also checks the derivative of the gradient, and that the Hessian is
            symmetric. Default 1.
        rtol: The relative error above which a leaf's gradient is wrong, at least 1e-9 and below 1. Default: any error
            above the uncertainty is wrong, and an uncertainty above 1e-3 (1e-2 if f computes with fewer digits than
            float64) is "cannot tell".
        directions: The number of random directions to try in each leaf, at least 1. If they leave a leaf in doubt, the
            check tries at least 4 in that leaf. Default 3.
        seed: The seed of the random directions and cotangents, at least 0. Default 0.

    Returns:
        A `GradientReport`. `print` shows it as one screen of text. Its method `raise_if_wrong` raises an error if the
        verdict is wrong. If `gradient`, `vjp` or `jvp` returns the wrong tree, shapes or dtypes, the verdict is wrong.
        The report then lists the misfit in `findings` or in the leaf's checks.

    Raises:
        DtypeError: If no leaf can be differentiated, f returns no floats, f or a given derivative is not callable,
            has_aux is not True or False, a numeric option is not a number, or the call is inside jit, grad or vmap.
        ShapeError: If `gradient` is given and f is not a scalar, `vjp` or `jvp` returns no pair, or f returns no pair
            with `has_aux`.
        RangeError: If argnums, order, rtol, directions or seed is out of range.

    Source: Ridders, Advances in Engineering Software 4 (1982) 75–76, for the quotient and its error.

    Example:
        >>> def cost(v):
        ...     return v[0] ** 2 + 3 * v[1]
        >>> v = jnp.array([1.0, 2.0])
        >>> check_gradients(cost, v).verdict
        <Verdict.RIGHT: 'right'>
        >>> check_gradients(cost, v, gradient=lambda v: jnp.array([2 * v[0], -3.0])).leaves[0].pattern
        'one element is wrong, [1]'
    """
    _require(f, has_aux, order, rtol, directions, seed, gradient=gradient, vjp=vjp, jvp=jvp)
    if argnums is None and gradient is not None:
        argnums = 0
    prepared = prepare(f, args, argnums, has_aux)
    with jax.default_matmul_precision("highest"):
        out = require_values("f", f(*prepared.problem.args(prepared.v, prepared.traced)))
        if has_aux:
            out = _without_aux(out)
        prepared = with_outputs(prepared, out)
        rng = np.random.default_rng(seed)
        w = _cotangents(prepared, out, max(directions, 4), rng)
        first = [jnp.asarray(jax.tree.leaves(out)[i]) for i in prepared.problem.outputs]
        native = _natively(prepared, first, w, rng)
        claims: list[Claim] = []
        one = [jnp.asarray(x[0], y.dtype) for x, y in zip(w, first, strict=True)]
        if native.one_function:
            single = not isinstance(argnums, Sequence)
            if gradient is not None:
                claims.append(claimed_gradient(prepared, out, gradient, single))
            if vjp is not None:
                claims.append(claimed_vjp(prepared, out, vjp, one))
            if jvp is not None:
                claims.append(claimed_jvp(prepared, out, jvp))
    if not native.one_function:
        return _undecided(prepared, native, directions, seed)
    lanes = Lanes(without_vmap=native.vmap_differs)
    derivatives = derive(prepared, claims, w, lanes, max(directions, 4), rng)
    examination = Examination(derivatives, claims, directions, rtol, rng)
    leaves = examination.run()
    precision = compare_natively(prepared, examination, native, claims, one)
    leaves = tuple(_with(leaf, precision.checks.get(i, [])) for i, leaf in enumerate(leaves))
    findings = [(claim.name, text) for claim in claims for leaf, text in claim.findings if leaf == ""]
    # The comparisons in the user's dtype run f outside of `lanes`.
    evaluations = lanes.count(Value(prepared.problem)) + 2 * len(native.consistency)
    consistency = [*native.consistency, *_value_of_the_rule(examination)]
    second = None
    notes = list(examination.notes)
    if prepared.fixed:
        more = f" and {len(prepared.fixed) - 6} more" if len(prepared.fixed) > 6 else ""
        notes.append(f"held fixed: {', '.join(prepared.fixed[:6])}{more}")
    if order == 2:
        second = _second_order(prepared, [x[0] for x in w], rtol, directions, seed)
    else:
        notes.append(_HIGHER)
    return GradientReport(
        name=prepared.name,
        leaves=leaves,
        consistency=tuple(consistency),
        precision=precision.lines,
        checked=_summary(examination, evaluations, directions, seed),
        not_checked=tuple(notes),
        evaluations=evaluations,
        directions=directions,
        seed=seed,
        dtype="float64" if examination.ladders.in_float64 else str(prepared.v[0].dtype),
        findings=tuple(text for _, text in findings),
        second_order=second,
    )


def _value_of_the_rule(examination: Examination) -> list[Consistency]:
    """Compare the value of f under `jax.vjp` with the plain value of f, in float64. Return [] if they agree."""
    outputs, ladders = examination.d.outputs, examination.ladders
    if not outputs or not ladders.in_float64 or ladders.narrow or 0 not in ladders.measure.zeros:
        return []
    value, size = ladders.measure.zeros[0]
    terms = [np.real(w[0] * y) for w, y in zip(examination.d.shared.cotangents, outputs, strict=True)]
    apart = abs(sum(float(np.sum(x)) for x in terms) - value) / size if size else 0.0
    if not math.isfinite(apart) or apart <= 1e-9:
        return []
    return [Consistency("f = its value under jax.vjp", Verdict.WRONG, Cause.OTHER_VALUE, apart)]


def _summary(examination: Examination, evaluations: int, directions: int, seed: int) -> str:
    dtype = "float64" if examination.ladders.in_float64 else "the dtype of the arguments"
    words = f"1 point, {directions} directions per leaf, {evaluations} evaluations of f in {dtype}, seed {seed}"
    names = [values.name for values in examination.d.values]
    return f"{words}; {' and '.join(names)} against difference quotients" if names else words


def _require(f: Any, has_aux: bool, order: int, rtol: float | None, directions: int, seed: int, **claims: Any) -> None:
    for name, function in {"f": f, **claims}.items():
        if name == "f" or function is not None:
            values = f"To check given values, pass {name}=lambda *args: values."
            require_callable(WHO, name, function, "It takes the arguments." if name == "f" else values)
    require_bool(WHO, "has_aux", has_aux)
    if not (isinstance(order, int | np.integer) and not isinstance(order, bool) and order in (1, 2)):
        raise RangeError(f"{WHO}: order must be 1 or 2, got {shown(order, str)}.")
    require_count(WHO, "directions", directions)
    require_count(WHO, "seed", seed, least=0)
    if rtol is not None:
        require_real(WHO, "rtol", rtol)
    if rtol is not None and not _LEAST_RTOL <= float(rtol) < 1:
        raise RangeError(
            f"{WHO}: rtol must be at least {_LEAST_RTOL:g} and below 1, got {shown(rtol, str)}.\n"
            "Difference quotients in float64 resolve no less. Leave rtol out to find every error that is visible."
        )


def _without_aux(out: Any) -> Any:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ShapeError(f"{WHO}: with has_aux=True, f must return (value, aux), got {describe(out)}.")
    return out[0]


def _cotangents(prepared: Prepared, out: Any, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw n random cotangents for each output, stacked. Return _SCALAR_COTANGENTS for an f that is a real scalar."""
    leaves = [np.asarray(jax.tree.leaves(out)[i]) for i in prepared.problem.outputs]
    if len(leaves) == 1 and leaves[0].shape == () and not np.iscomplexobj(leaves[0]):
        return [np.resize(_SCALAR_COTANGENTS, n)]
    return [cotangents(y.astype(complex if np.iscomplexobj(y) else float), n, rng, _least(y.dtype)) for y in leaves]


def _least(dtype: Any) -> float:
    """Return the least size of an output whose reciprocal, times 100, is in the range of the dtype."""
    return 100 / float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _natively(prepared: Prepared, first: list[Any], w: list[np.ndarray], rng: np.random.Generator) -> Native:
    second = prepared.problem(prepared.v, prepared.traced)
    eps = max(eps_of(x.dtype) for x in [*prepared.v, *first])
    one = [jnp.asarray(x[0], y.dtype) for x, y in zip(w, first, strict=True)]
    eager = [np.asarray(x) for x in first], [np.asarray(x) for x in second]
    return run_natively(prepared.problem, prepared.v, prepared.traced, one, eager, eps, rng)


def _undecided(prepared: Prepared, native: Native, directions: int, seed: int) -> GradientReport:
    """Return the report for an f whose values differ between runs. No derivative can be compared then."""
    cause = next(c.cause for c in native.consistency if c.verdict is not Verdict.RIGHT and "vmap" not in c.name)
    check = Check("autodiff = quotient", Verdict.CANNOT_TELL, cause, float("nan"), float("inf"))
    leaves = tuple(LeafReport(leaf.name, leaf.shape, leaf.dtype, (check,)) for leaf in prepared.leaves)
    return GradientReport(
        name=prepared.name,
        leaves=leaves,
        consistency=tuple(native.consistency),
        precision=(),
        checked="only the consistency of f",
        not_checked=("its derivatives",),
        evaluations=4,
        directions=directions,
        seed=seed,
        dtype="",
    )


def _with(leaf: LeafReport, checks: list[Check]) -> LeafReport:
    return dataclasses.replace(leaf, checks=(*leaf.checks, *checks))


def _second_order(prepared: Prepared, w: list[Any], rtol: float | None, directions: int, seed: int) -> GradientReport:
    """Check the derivative H of ∇⟨w, f⟩ in the same way, and check that H is symmetric. H is the Hessian of ⟨w, f⟩."""
    problem = prepared.problem

    def gradient(*args: Any) -> Any:
        *args_of_f, w = args
        leaves = jax.tree.leaves(tuple(args_of_f))
        v, traced = [leaves[i] for i in problem.varied], [leaves[i] for i in problem.traced]
        out, pullback = jax.vjp(lambda v: problem(v, traced), v)
        return pullback([jnp.asarray(ct, y.dtype) for ct, y in zip(w, out, strict=True)])[0]

    gradient.__qualname__ = f"∇{prepared.name}"
    args = problem.args(prepared.v, prepared.traced)
    with contextlib.suppress(TypeError, ValueError):
        names = [*inspect.signature(problem.f.value).parameters][: len(args)]
        named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in (*names, "cotangent")]
        gradient.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    # Differentiate with respect to w too: a custom rule may return the right value and still block this derivative.
    w = [jnp.asarray(ct, y.dtype) for ct, y in zip(w, problem(prepared.v, prepared.traced), strict=True)]
    argnums = (*prepared.argnums, len(args))
    report = check_gradients(gradient, *args, w, argnums=argnums, rtol=rtol, directions=directions, seed=seed)
    symmetric = _symmetry(gradient, prepared, w, seed)
    # The first-order report already lists the fixed arguments.
    notes = tuple(note for note in report.not_checked if note != _HIGHER and not note.startswith("held fixed"))
    return dataclasses.replace(report, consistency=(*report.consistency, *symmetric), not_checked=notes)


def _symmetry(gradient: Callable[..., Any], prepared: Prepared, w: list[Any], seed: int) -> list[Consistency]:
    """Compare ⟨u, Hv⟩ with ⟨v, Hu⟩ for two random directions u and v. Return [] if H has no forward mode."""
    rng = np.random.default_rng(seed)
    problem = prepared.problem
    with in_float64():
        x, traced, wide = raised(prepared.v), raised(prepared.traced), raised(w)
        drawn = [random_directions(np.asarray(leaf), 3, rng) for leaf in x]
        u, v = ([jnp.asarray(d[i]) for d in drawn] for i in (0, 2))

        def along(direction: list[Any]) -> Any:
            return jax.jvp(lambda x: gradient(*problem.args(x, traced), wide), (x,), (direction,))[1]

        try:
            hu, hv = along(u), along(v)
        except Exception:
            return []
        a, b = float(bilinear(u, hv)), float(bilinear(v, hu))
        size = float(bilinear([jnp.abs(y) for y in u], [jnp.abs(y) for y in hv]))
    if not (np.isfinite(a) and np.isfinite(b)) or size == 0:
        return []
    good = abs(a - b) <= 1e-8 * size
    verdict, cause = (Verdict.RIGHT, Cause.AGREES) if good else (Verdict.WRONG, Cause.ASYMMETRIC)
    return [Consistency("⟨u, Hv⟩ = ⟨v, Hu⟩", verdict, cause, abs(a - b) / size)]

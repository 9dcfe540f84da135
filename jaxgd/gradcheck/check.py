"""`check_gradients`: run the comparisons of derivatives and make the report."""

import dataclasses
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
from jaxgd.gradcheck.claims import claimed_gradient, claimed_jvp, claimed_vjp, misfits, require_values
from jaxgd.gradcheck.clock import Clock
from jaxgd.gradcheck.consistency import compare_with_float64, run_in_users_dtype
from jaxgd.gradcheck.derive import Derivatives, derive
from jaxgd.gradcheck.draws import cotangents
from jaxgd.gradcheck.draws import directions as drawn_directions
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.problem import WHO, Opaque, Prepared, Problem, evaluation, prepare, with_outputs
from jaxgd.gradcheck.programs import Value
from jaxgd.gradcheck.report import Check, Consistency, GradientReport, LeafReport
from jaxgd.gradcheck.run import Runner, eps_of, traits
from jaxgd.gradcheck.sample import Sampler, first_lines
from jaxgd.gradcheck.second_order import Options, check_second_order, has_reverse_mode
from jaxgd.gradcheck.verdicts import Cause, Verdict
from jaxgd.mesh.axes import automatic_axes
from jaxgd.mesh.processes import on_host, spans_processes

# The smallest relative error that difference quotients in float64 can resolve.
_LEAST_RTOL = 1e-9
# The cotangents for a real scalar f. The first is 1, because it gives the gradient. The others differ in sign and
# size, because a wrong rule may treat them differently.
_SCALAR_COTANGENTS = (1.0, -0.6, 1.7, 0.3, -1.2)
# Under `jax.vjp`, a custom rule returns its own value of f. It may differ from f by this fraction in float64.
_SAME_VALUE = 1e-9
# If the first directions do not decide about a leaf, the check tries at least this number of directions in it.
_DIRECTIONS = 4
# To measure how much each output changes, each element of the point moves by about this fraction of its size.
_MOVE = 2.0**-8
_MOST_DIRECTIONS = 1000


@automatic_axes
def check_gradients(
    f: Callable[..., Any],
    *args: Any,
    gradient: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    order: int = 1,
    reference: Callable[..., Any] | None = None,
    rtol: float | None = None,
    nondeterminism: float = 0.0,
    seconds: float | None = None,
    directions: int = 3,
    seed: int = 0,
) -> GradientReport:
    """Check the derivatives of f at one point: right, wrong or cannot tell, for each leaf of the arguments.

    Let u be a random direction in one leaf, w a cotangent of the result of f (random, unless f is a real scalar), J the
    Jacobian of f, and F(t) = ⟨w, f(x + t u)⟩. The check compares three values of F′(0):

    - ⟨Jᵀw, u⟩, by reverse mode;
    - ⟨w, Ju⟩, by forward mode;
    - the difference quotient (F(h) − F(−h))/2h, extrapolated to h → 0, with an estimate of its error.

    The check evaluates f in float64 if f can run in float64, for arguments of any dtype. x64 need not be enabled. The
    check also compares a derivative given as `gradient`, `vjp` or `jvp` with autodiff directly, up to rounding.

    A verdict depends on the error relative to the gradient of the leaf, and on the measured noise of f. In a wrong
    leaf, the check searches for the wrong elements. The report lists the worst of them. It also names the pattern of
    the error, if the check recognizes one.

    Args:
        f: The function to check. It returns any pytree with at least one floating-point or complex leaf. An exception
            in its first run passes through unchanged.
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
        order: 1 checks the first derivative. 2 also checks the derivative of the gradient by autodiff, and that the
            Hessian is symmetric. Default 1.
        reference: A function that takes the arguments of f, returns results of the same shapes, and has the intended
            derivative. The derivatives of f are compared with the quotients of `reference`. Pass it if f is a
            straight-through estimator, a reversed gradient, or a fixed point that is differentiated through one step.
            Default: f.
        rtol: The relative error above which a leaf's gradient is wrong, at least 1e-9 and below 1. Default: the
            gradient is wrong if its error exceeds the uncertainty, and the relative uncertainty is at most 0.5. It is
            right if its error does not exceed the uncertainty, and the relative uncertainty is at most 1e-3. This limit
            is 1e-2 if f computes with fewer digits than float64. Otherwise the verdict is "cannot tell".
        nondeterminism: The relative difference allowed between two runs of the same derivative, at least 0 and below 1.
            A backward pass that adds in a varying order needs a value above 0. Default 0.
        seconds: A time limit in seconds, above 0. After it, the check starts no further quotients and no search for
            wrong elements, and undecided leaves are "cannot tell". A running XLA program cannot be stopped. Default:
            no limit.
        directions: The number of random directions to try in each leaf, from 1 to 1000. If they do not decide about a
            leaf, the check tries at least 4 in that leaf. Default 3.
        seed: The seed of the random directions and cotangents, at least 0. Default 0.

    Returns:
        A `GradientReport`. `print` shows it as one screen of text. Its method `raise_if_wrong` raises an error if the
        verdict is wrong. The verdict is also wrong if `gradient`, `vjp` or `jvp` returns a wrong tree, a wrong shape or
        a wrong dtype, or if `vjp` or `jvp` returns another value than f. The report lists such a misfit in `findings`
        or in the leaf's checks.

    Raises:
        DtypeError: If no leaf can be differentiated; if f or reference returns no floats; if f, reference or a given
            derivative is not callable; if has_aux is not True or False; if argnums or a numeric option is not a number;
            or if the call is inside jit, grad or vmap.
        ShapeError: If `gradient` is given and f is not a scalar, `vjp` or `jvp` returns no pair, f or reference returns
            no pair with `has_aux`, or the results of f and reference differ in shape.
        RangeError: If argnums, order, rtol, nondeterminism, seconds, directions or seed is out of range.

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
    _require(
        f,
        has_aux,
        order,
        rtol,
        directions,
        seed,
        nondeterminism,
        seconds,
        gradient=gradient,
        vjp=vjp,
        jvp=jvp,
        reference=reference,
    )
    if argnums is None and gradient is not None:
        argnums = 0
    rtol, seconds = (None if x is None else float(x) for x in (rtol, seconds))
    nondeterminism, clock = float(nondeterminism), Clock(seconds, spans_processes((args, f)))
    prepared, rng, n = prepare(f, args, argnums, has_aux), np.random.default_rng(seed), max(directions, _DIRECTIONS)
    report = GradientReport(prepared.name, (), (), (), "", (), 0, int(directions), int(seed), "")
    # The first run keeps the user's settings, except for the precision of matrix products. If a setting forbids an
    # operation of f, the user then sees the exception of f.
    with jax.default_matmul_precision("highest"):
        out = require_values("f", f(*prepared.problem.args(prepared.v, prepared.traced)))
    with evaluation(float64=False):
        out = _without_aux(out) if has_aux else out
        prepared = with_outputs(prepared, out)
        first = [jnp.asarray(jax.tree.leaves(out)[i]) for i in prepared.problem.outputs]
        problem = _meant(prepared, reference, first)
        traits_of_f = traits(lambda v: prepared.problem(v, prepared.traced), prepared.v)
        eps = max(traits_of_f.eps, *(eps_of(x.dtype) for x in [*prepared.v, *first]))
        w = _cotangents(prepared, first, eps, n, rng)
        one = [jnp.asarray(x[0], y.dtype) for x, y in zip(w, first, strict=True)]
        single = not isinstance(argnums, Sequence)
        claims = [claimed_gradient(prepared, out, gradient, single)] if gradient is not None else []
        claims += [claimed_vjp(prepared, out, vjp, one)] if vjp is not None else []
        claims += [claimed_jvp(prepared, out, jvp)] if jvp is not None else []
        findings = tuple(text for claim in claims for leaf, text in claim.findings if leaf == "")
        report = dataclasses.replace(report, findings=findings)
        if not first or not any(x.size for x in prepared.v):
            leaves = tuple(
                LeafReport(leaf.name, leaf.shape, leaf.dtype, misfits(claims, leaf.name)) for leaf in prepared.leaves
            )
            return dataclasses.replace(report, leaves=leaves, checked="nothing: all arguments or results are empty")
        run = run_in_users_dtype(prepared, first, one, eps, rng, nondeterminism, rtol or 0.0)
        report = dataclasses.replace(report, consistency=tuple(run.consistency), evaluations=2 * len(run.consistency))
        if not run.one_function:
            cause = next(c.cause for c in run.consistency if c.verdict is not Verdict.RIGHT and "vmap" not in c.name)
            return _undecided(report, prepared, cause)
    if clock.over():
        return _undecided(report, prepared, Cause.OUT_OF_TIME, "in the derivatives")
    d = derive(prepared, claims, w, Runner(without_vmap=run.vmap_differs), n, rng, nondeterminism)
    if clock.over():
        return _undecided(report, prepared, Cause.OUT_OF_TIME, "in the quotients at a few steps")
    sampler, lines = first_lines(d, prepared, problem, directions)
    tolerance = None if rtol is None else max(rtol, nondeterminism)
    leaves = Examination(d, sampler, claims, tolerance, rng, lines, clock).run()
    precision, checks = compare_with_float64(d, sampler, run, claims, one)
    leaves = tuple(dataclasses.replace(x, checks=(*x.checks, *checks.get(i, []))) for i, x in enumerate(leaves))
    notes, second = [*d.notes, *_held_fixed(prepared)], None
    if order == 1:
        notes.append("second derivatives: order=2 checks them")
    elif d.reverse is None:
        notes.append("second derivatives: f has no reverse mode")
    elif problem != prepared.problem and not has_reverse_mode(prepared, problem, one):
        notes.append("second derivatives: reference has no reverse mode")
    else:
        notes += [f"second derivatives of {claim.name}: order=2 checks only those of autodiff" for claim in claims]
        options = Options(
            rtol=rtol, nondeterminism=nondeterminism, seconds=clock.left(), directions=directions, seed=seed
        )
        second = check_second_order(check_gradients, prepared, problem, [np.asarray(x[0]) for x in w], options)
    # The second term counts the evaluations of f in the user's dtype, which the runner does not count.
    evaluations = d.runner.runs.get(Value(problem), 0) + 2 * len(run.consistency)
    dtype = "float64" if sampler.in_float64 else str(prepared.v[0].dtype)
    how = f"for arguments in {dtype}" if sampler.coarse else f"in {dtype}"
    words = f"1 point, {directions} directions per leaf, {evaluations} evaluations of f {how}, seed {seed}"
    names = [claim.name for claim in d.claims]
    return dataclasses.replace(
        report,
        leaves=leaves,
        consistency=(*run.consistency, *_value_of_the_rule(d, sampler, rtol)),
        precision=tuple(precision),
        checked=f"{words}; {' and '.join(names)} against difference quotients" if names else words,
        not_checked=tuple(notes),
        evaluations=evaluations,
        dtype=dtype,
        second_order=second,
    )


def _meant(prepared: Prepared, reference: Callable[..., Any] | None, first: list[Any]) -> Problem:
    """Return the function that has the intended derivative. Raise ShapeError if its results do not fit f's."""
    if reference is None:
        return prepared.problem
    meant = dataclasses.replace(prepared, problem=dataclasses.replace(prepared.problem, f=Opaque(reference)))
    out = require_values("reference", reference(*meant.problem.args(prepared.v, prepared.traced)))
    out = _without_aux(out, "reference") if meant.problem.has_aux else out
    problem = with_outputs(meant, out, "reference").problem
    values = [jnp.asarray(jax.tree.leaves(out)[i]) for i in problem.outputs]
    if [(x.shape, jnp.iscomplexobj(x)) for x in values] != [(y.shape, jnp.iscomplexobj(y)) for y in first]:
        got, expected = (", ".join(map(describe, x)) or "no floats" for x in (values, first))
        raise ShapeError(f"{WHO}: reference must return floats of the shapes that f returns, {expected}, got {got}.")
    return problem


def _undecided(report: GradientReport, prepared: Prepared, cause: Cause, note: str = "") -> GradientReport:
    """Return the report of a check that compares no derivative."""
    check = Check("autodiff = quotient", Verdict.CANNOT_TELL, cause, float("nan"), float("inf"), note)
    leaves = tuple(
        LeafReport(leaf.name, leaf.shape, leaf.dtype, (check,) if math.prod(leaf.shape) else ())
        for leaf in prepared.leaves
    )
    return dataclasses.replace(
        report, leaves=leaves, checked="only the consistency of f", not_checked=("its derivatives",)
    )


def _held_fixed(prepared: Prepared) -> list[str]:
    if not prepared.fixed:
        return []
    more = f" and {len(prepared.fixed) - 6} more" if len(prepared.fixed) > 6 else ""
    return [f"held fixed: {', '.join(prepared.fixed[:6])}{more}"]


@np.errstate(all="ignore")
def _value_of_the_rule(d: Derivatives, sampler: Sampler, rtol: float | None) -> list[Consistency]:
    """Compare the value of f under `jax.vjp` with the value of f without a derivative, in float64.

    Return [] if the two values agree or cannot be compared.
    """
    if not d.outputs or not sampler.in_float64 or sampler.coarse or sampler.problem != d.prepared.problem:
        return []
    value, size = sampler.zeros[0]
    terms = [np.real(w[0] * y) for w, y in zip(d.shared.cotangents, d.outputs, strict=True)]
    difference = abs(sum(float(np.sum(x)) for x in terms) - value) / size if size else 0.0
    if not math.isfinite(difference) or difference <= max(_SAME_VALUE, rtol or 0.0):
        return []
    return [Consistency("f = its value under jax.vjp", Verdict.WRONG, Cause.OTHER_VALUE, difference)]


def _require(
    f: Any,
    has_aux: bool,
    order: int,
    rtol: float | None,
    directions: int,
    seed: int,
    nondeterminism: float,
    seconds: float | None,
    **claims: Any,
) -> None:
    for name, function in {"f": f, **claims}.items():
        if name == "f" or function is not None:
            values = "To check given values, pass gradient=lambda *args: values."
            require_callable(WHO, name, function, values if name == "gradient" else "It takes the arguments of f.")
    require_bool(WHO, "has_aux", has_aux)
    require_count(WHO, "order", order, most=2)
    require_count(WHO, "directions", directions, most=_MOST_DIRECTIONS)
    require_count(WHO, "seed", seed, least=0)
    if rtol is not None:
        require_real(WHO, "rtol", rtol)
    require_real(WHO, "nondeterminism", nondeterminism)
    if not 0 <= nondeterminism < 1:
        raise RangeError(f"{WHO}: nondeterminism must be at least 0 and below 1, got {shown(nondeterminism, str)}.")
    if seconds is not None:
        require_real(WHO, "seconds", seconds)
        if not seconds > 0:
            raise RangeError(f"{WHO}: seconds must be above 0, got {shown(seconds, str)}.\nLeave it out for no limit.")
    if rtol is not None and not _LEAST_RTOL <= float(rtol) < 1:
        raise RangeError(
            f"{WHO}: rtol must be at least {_LEAST_RTOL:g} and below 1, got {shown(rtol, str)}.\n"
            "Difference quotients in float64 cannot resolve less. Leave rtol out to find every visible error."
        )


def _without_aux(out: Any, name: str = "f") -> Any:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ShapeError(f"{WHO}: with has_aux=True, {name} must return (value, aux), got {describe(out)}.")
    return out[0]


def _cotangents(prepared: Prepared, first: list[Any], eps: float, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw n random cotangents for each output, stacked. For a real scalar f, repeat _SCALAR_COTANGENTS instead."""
    if len(first) == 1 and first[0].shape == () and not jnp.iscomplexobj(first[0]):
        return [np.resize(_SCALAR_COTANGENTS, n)]
    u = [jnp.asarray(_MOVE * drawn_directions(on_host(x), 2, rng)[1], x.dtype) for x in prepared.v]
    try:
        moved = prepared.problem([x + dx for x, dx in zip(prepared.v, u, strict=True)], prepared.traced)
        if [np.shape(x) for x in moved] != [np.shape(y) for y in first]:
            moved = first
    except Exception:
        # f may raise an exception at the moved point.
        moved = first
    return [cotangents(on_host(y), on_host(x), eps, n, rng) for y, x in zip(first, moved, strict=True)]

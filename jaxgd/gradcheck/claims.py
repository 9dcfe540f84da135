"""The claimed derivatives and their misfits. A misfit is a tree, a shape, a dtype or a value that does not fit f.

A claim is a derivative that the caller passes as gradient=, vjp= or jvp=.
"""

import dataclasses
import math
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from numpy.typing import NDArray

from jaxgd.errors import DtypeError, ShapeError, describe, dtype_of, is_traced
from jaxgd.gradcheck.problem import WHO, Numbers, Opaque, Prepared
from jaxgd.gradcheck.programs import ClaimedGradient, ClaimedJvp, ClaimedVjp, whole_cotangent
from jaxgd.gradcheck.report import Check
from jaxgd.gradcheck.run import eps_of
from jaxgd.gradcheck.verdicts import Cause, Verdict
from jaxgd.mesh.processes import on_host

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claimed derivative to check.

    Attributes:
        name: The keyword argument of the claim: gradient, vjp or jvp.
        reverse: The program for Jᵀw, with J the Jacobian of f; None for jvp.
        forward: The program for ⟨w, Ju⟩; None for gradient and vjp, and for a jvp with findings.
        findings: The misfits, each as (leaf, text). The leaf is "" for a misfit of the whole claim.
        absent: The leaves for which the claim has no usable value.
        values: The claimed Jᵀw for each leaf in the user's dtype, with the first cotangent w. Empty for jvp and for
            the gradient of a complex f.
    """

    name: str
    reverse: ClaimedGradient | ClaimedVjp | None = None
    forward: ClaimedJvp | None = None
    findings: tuple[tuple[str, str], ...] = ()
    absent: frozenset[int] = frozenset()
    values: tuple[NDArray[Any] | None, ...] = ()


def require_values(name: str, result: T) -> T:
    """Return the result of a user's function. Raise DtypeError if one of its arrays is traced."""
    if any(map(is_traced, jax.tree.leaves(result))):
        raise DtypeError(
            f"{WHO}: {name} must return arrays with values, got a traced one.\nCall {WHO} outside jit, grad and vmap."
        )
    return result


def claimed_gradient(prepared: Prepared, out: object, gradient: Callable[..., object], single: bool) -> Claim:
    """Call `gradient` with the arguments of f, and return the claim. Raise ShapeError if f is not a scalar."""
    leaves = [jnp.asarray(jax.tree.leaves(out)[i]) for i in prepared.problem.outputs]
    if len(leaves) != 1 or leaves[0].shape != ():
        got = ", ".join(map(describe, leaves))
        raise ShapeError(f"{WHO}: with gradient=, f must return one scalar, got {got}.\nUse vjp= or jvp= for this f.")
    args = prepared.problem.args(prepared.v, prepared.traced)
    claimed = require_values("gradient", gradient(*args))
    paths = [
        leaf.path[1:] if single else (prepared.argnums.index(leaf.path[0].idx), *leaf.path[1:])
        for leaf in prepared.leaves
    ]
    expected = args[prepared.argnums[0]] if single else tuple(args[i] for i in prepared.argnums)
    places, findings = _fit("gradient", prepared, claimed, expected, paths)
    if findings and single and isinstance(claimed, tuple) and len(claimed) == len(args) > 1:
        hint = f"for the gradient with respect to all {len(args)} arguments, pass argnums={tuple(range(len(args)))}"
        findings = (*findings, ("", hint))
    fn = ClaimedGradient(prepared.problem, Opaque(gradient), places)
    values = _taken(claimed, places)
    if jnp.iscomplexobj(leaves[0]):
        values = ()  # The gradient is Jᵀw for w = 1, but the first cotangent of a complex f is random.
    return Claim("gradient", fn, findings=findings, absent=_absent(places), values=values)


def claimed_vjp(prepared: Prepared, out: object, vjp: Callable[..., object], w: Sequence[Numbers]) -> Claim:
    """Call `vjp` with the arguments of f, and return the claim.

    Raise ShapeError if `vjp` does not return a pair of a value and a function.
    """
    args = prepared.problem.args(prepared.v, prepared.traced)
    pair = require_values("vjp", vjp(*args))
    if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])):
        raise ShapeError(
            f"{WHO}: vjp(*args) must return (f(*args), pullback) as jax.vjp(f, *args) does, got {_parts(pair)}."
        )
    findings = _same_result("vjp", out, pair[0])
    claimed = pair[1](whole_cotangent(prepared.problem, pair[0], w))
    places, misfits = _fit("vjp", prepared, claimed, args, [_plain(leaf.path) for leaf in prepared.leaves])
    fn = ClaimedVjp(prepared.problem, Opaque(vjp), places)
    return Claim("vjp", fn, findings=findings + misfits, absent=_absent(places), values=_taken(claimed, places))


def claimed_jvp(prepared: Prepared, out: object, jvp: Callable[..., object]) -> Claim:
    """Call `jvp` with the arguments of f and tangents of 0, and return the claim.

    Raise ShapeError if `jvp` does not return a pair.
    """
    zero = prepared.problem.tangents(prepared.v, prepared.traced, [jnp.zeros_like(x) for x in prepared.v])
    pair = require_values("jvp", jvp(prepared.problem.args(prepared.v, prepared.traced), zero))
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise ShapeError(
            f"{WHO}: jvp(primals, tangents) must return (f(*primals), tangents) as jax.jvp does, got {_parts(pair)}."
        )
    findings = _same_result("jvp", out, pair[0]) or _same_result("jvp, as tangents,", out, pair[1], values=False)
    return Claim("jvp", forward=ClaimedJvp(prepared.problem, Opaque(jvp)) if not findings else None, findings=findings)


def misfits(claims: Sequence[Claim], leaf: str) -> tuple[Check, ...]:
    """Return a check for each misfit of a leaf."""
    return tuple(
        Check(f"{claim.name} fits", Verdict.WRONG, Cause.STRUCTURE, math.nan, 0.0, text)
        for claim in claims
        for name, text in claim.findings
        if name == leaf
    )


def _fit(
    who: str, prepared: Prepared, claimed: object, expected: object, paths: list[tuple[Any, ...]]
) -> tuple[tuple[int | None, ...], tuple[tuple[str, str], ...]]:
    """Return the index of each differentiated leaf in the claimed tree, None if no value fits, and the misfits."""
    if who == "vjp" and not isinstance(claimed, tuple):
        return (None,) * len(paths), (("", f"the pullback of vjp must return a tuple, got {describe(claimed)}"),)
    findings: list[tuple[str, str]] = []
    have = {_key(path): (i, x) for i, (path, x) in enumerate(jax.tree_util.tree_leaves_with_path(claimed))}
    nowhere: tuple[int | None, Any] = None, None
    wanted = {_key(path): leaf for path, leaf in zip(paths, prepared.leaves, strict=True)}
    places: list[int | None] = []
    for path, leaf in wanted.items():
        place, value = have.get(path, nowhere)
        if place is None:
            findings.append((leaf.name, f"{who} has no leaf for {leaf.name}"))
        elif dtype_of(value) is None:
            findings.append((leaf.name, f"{who} for {leaf.name} is {describe(value)}, not an array of numbers"))
            place = None
        elif np.shape(value) != leaf.shape:
            got = f"{describe(value)}, the leaf is {leaf.dtype}[{','.join(map(str, leaf.shape))}]"
            findings.append((leaf.name, f"{who} for {leaf.name} is {got}"))
            place = None
        elif not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
            findings.append((leaf.name, f"{who} for {leaf.name} is {describe(value)}, not floating point"))
            place = None
        elif hasattr(value, "dtype") and str(value.dtype) != leaf.dtype:
            findings.append((leaf.name, f"{who} for {leaf.name} is {value.dtype}, the leaf is {leaf.dtype}"))
        places.append(place)
    allowed = {_key(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)}
    findings += [
        ("", f"{who} has a leaf at {path or 'the top'}, where the arguments have none")
        for path in have.keys() - allowed
    ]
    if not findings and _containers(claimed, wanted) != _containers(expected, wanted):
        findings.append(("", f"{who} has the containers {_outline(claimed)}, expected {_outline(expected)}"))
    return tuple(places), tuple(findings)


def _taken(claimed: object, places: Sequence[int | None]) -> tuple[NDArray[Any] | None, ...]:
    leaves = jax.tree.leaves(claimed)
    return tuple(None if place is None else on_host(leaves[place]) for place in places)


def _absent(places: Sequence[int | None]) -> frozenset[int]:
    return frozenset(i for i, place in enumerate(places) if place is None)


def _same_result(who: str, expected: object, got: object, values: bool = True) -> tuple[tuple[str, str], ...]:
    """Compare `got` with the result of f, and return the misfits."""
    if not _alike(expected, got):
        return (("", f"{who} returns {_outline(got)}, f returns {_outline(expected)}"),)
    findings = []
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(got), strict=True):
        name = jax.tree_util.keystr(path)
        dtype = dtype_of(x)
        if dtype is None or dtype_of(y) is None:
            if describe(x) != describe(y):
                findings.append(("", f"{who} returns {describe(y)}{name}, f returns {describe(x)}"))
            continue
        inexact = jnp.issubdtype(dtype, jnp.inexact)
        if np.shape(x) != np.shape(y) or (inexact and jnp.result_type(x) != jnp.result_type(y)):
            findings.append(("", f"{who} returns {describe(y)}{name}, f returns {describe(x)}"))
        elif values and inexact:
            a, b = np.asarray(x).astype(complex), np.asarray(y).astype(complex)
            close = eps_of(jnp.result_type(x)) ** 0.5 * np.max(np.abs(a), initial=0.0)
            if not np.allclose(a, b, rtol=0, atol=close, equal_nan=True):
                where = f" at {name}" if name else ""
                apart = f"the largest difference is {np.max(np.abs(a - b)):.2g}"
                findings.append(("", f"{who} returns different values than f{where}: {apart}"))
    return tuple(findings)


def _key(path: Sequence[Any]) -> str:
    return jax.tree_util.keystr(_plain(path))


def _plain(path: Sequence[Any]) -> tuple[Any, ...]:
    """Return the path with each int replaced by a `SequenceKey`."""
    return tuple(jax.tree_util.SequenceKey(key) if isinstance(key, int) else key for key in path)


def _containers(tree: object, wanted: Container[str]) -> PyTreeDef:
    """Return the structure of the tree without the leaves that are not differentiated."""
    return jax.tree.structure(
        jax.tree_util.tree_map_with_path(lambda path, x: x if _key(path) in wanted else None, tree)
    )


def _alike(a: object, b: object) -> bool:
    structures: list[object] = [jax.tree.structure(a), jax.tree.structure(b)]
    return structures[0] == structures[1]


def _parts(value: object) -> str:
    if not isinstance(value, tuple):
        return describe(value)
    return f"({', '.join(map(describe, value))})"


def _outline(tree: object) -> str:
    return str(jax.tree.structure(tree)).removeprefix("PyTreeDef(").removesuffix(")")

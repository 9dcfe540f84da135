"""The function to check, as a function of the differentiated leaves of its arguments, in any dtype."""

import contextlib
import dataclasses
import inspect
import logging
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef
from numpy.typing import NDArray

from jaxgd.errors import DtypeError, RangeError, describe, dtype_of, given, is_traced, shown

WHO = "check_gradients"

# JAX arrays from the device, or NumPy arrays that the host drew.
Numbers = Array | NDArray[Any]
T = TypeVar("T")

# JAX logs failing callbacks here. The name is private, but the public logger "jax" also carries compile logs. If JAX
# renames this logger, tracebacks appear, but no verdict changes.
_CALLBACKS = logging.getLogger("jax._src.callback")
_LOCK = threading.Lock()
_quiet = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Opaque(Generic[T]):
    """A hashable wrapper of any object. It is equal only to a wrapper of the same object."""

    value: T

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclasses.dataclass(frozen=True)
class Problem:
    """f as a function of the differentiated leaves v of its arguments, with all other leaves fixed.

    A problem is hashable, so that a check compiles each program only once. The place of a leaf is its position in
    `jax.tree.leaves`.

    Attributes:
        f: The user's function.
        structure: The tree of the arguments.
        varied: The places of the differentiated leaves.
        traced: The places of the fixed leaves that are traced: JAX arrays and floating-point leaves.
        static: The places and values of all other leaves, which are part of the compiled program.
        has_aux: True if f returns (value, aux).
        outputs: The places of the floating-point and complex leaves in the result of f. Empty leaves are left out.
    """

    f: Opaque[Callable[..., object]]
    structure: PyTreeDef
    varied: tuple[int, ...]
    traced: tuple[int, ...]
    static: tuple[tuple[int, Opaque[object]], ...]
    has_aux: bool
    outputs: tuple[int, ...] = ()

    def args(self, v: Sequence[Numbers], traced: Sequence[Numbers]) -> tuple[object, ...]:
        """Return the arguments of f, put together from their leaves."""
        leaves: dict[int, object] = dict(self.static_leaves())
        leaves |= zip(self.varied, v, strict=True)
        leaves |= zip(self.traced, traced, strict=True)
        args: tuple[object, ...] = jax.tree.unflatten(self.structure, [leaves[i] for i in range(len(leaves))])
        return args

    def static_leaves(self) -> Iterator[tuple[int, object]]:
        """Return the place and value of each leaf that is neither differentiated nor traced."""
        return ((place, opaque.value) for place, opaque in self.static)

    def tangents(
        self, v: Sequence[Numbers], traced: Sequence[Numbers], tangent: Sequence[Numbers]
    ) -> tuple[object, ...]:
        """Return tangents for all arguments of f, as `jax.jvp` takes them.

        Fixed floating-point leaves have the tangent 0, and leaves of other dtypes have a tangent of the dtype float0.
        """
        leaves: dict[int, object] = {place: _no_tangent(value) for place, value in self.static_leaves()}
        leaves |= {place: _no_tangent(value) for place, value in zip(self.traced, traced, strict=True)}
        leaves |= zip(self.varied, tangent, strict=True)
        tangents: tuple[object, ...] = jax.tree.unflatten(self.structure, [leaves[i] for i in range(len(leaves))])
        return tangents

    def result(self, v: Sequence[Numbers], traced: Sequence[Numbers]) -> object:
        """Return the result of f, without aux."""
        out = self.f.value(*self.args(v, traced))
        return out[0] if self.has_aux and isinstance(out, tuple) else out

    def __call__(self, v: Sequence[Numbers], traced: Sequence[Numbers]) -> list[Array]:
        """Return the leaves of the result of f at the places `outputs`."""
        leaves = jax.tree.leaves(self.result(v, traced))
        return [jnp.asarray(leaves[i]) for i in self.outputs]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The name, shape, dtype and path of a differentiated leaf, as the user passed it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A problem and the point of the check, with names for the report.

    Attributes:
        problem: The function to check.
        v: The differentiated leaves.
        traced: The fixed arrays.
        leaves: The descriptions of the differentiated leaves.
        axes: The name and length of each axis of the arguments.
        argnums: The positions of the differentiated arguments.
        name: The name of f.
        fixed: The names of the leaves that are not differentiated.
    """

    problem: Problem
    v: list[Array]
    traced: list[Array]
    leaves: list[Leaf]
    axes: tuple[tuple[str, int], ...]
    argnums: tuple[int, ...]
    name: str
    fixed: tuple[str, ...] = ()


def prepare(
    f: Callable[..., object], args: tuple[object, ...], argnums: int | Sequence[int] | None, has_aux: bool
) -> Prepared:
    """Sort the leaves of the arguments into differentiated, traced and static ones.

    Raise DtypeError if a leaf is traced by a transformation, if no leaf can be differentiated, or if argnums is
    not one or several whole numbers. Raise RangeError if argnums is out of range, empty or names an argument twice.
    """
    chosen = _argnums(argnums, len(args))
    names = _names(f, len(args))
    with_paths, structure = jax.tree_util.tree_flatten_with_path(args)
    varied, traced, static, v, held, leaves, axes, fixed = [], [], [], [], [], [], [], []
    value: object
    for place, (path, value) in enumerate(with_paths):
        if is_traced(value):
            raise DtypeError(
                f"{WHO}: it cannot run inside jit, grad or vmap, because it reads the values of the arguments.\n"
                "Call it outside of the transformation."
            )
        name = names[path[0].idx] + jax.tree_util.keystr(path[1:])
        inexact = _is_inexact(value)
        if isinstance(shape := getattr(value, "shape", None), tuple):
            axes += [(f"axis {axis} of {name}", n) for axis, n in enumerate(shape)]
        if inexact and path[0].idx in chosen:
            array = jnp.asarray(value)
            varied.append(place)
            v.append(array)
            leaves.append(Leaf(name, array.shape, str(array.dtype), path))
            continue
        fixed.append(name if inexact else f"{name} ({describe(value)})")
        if inexact or isinstance(value, jax.Array):
            traced.append(place)
            held.append(value if isinstance(value, jax.Array) else jnp.asarray(value))
        else:
            # f may use an integer as a shape, and may compute with a NumPy array of integers outside of JAX, so do not
            # trace them.
            static.append((place, Opaque(value)))
    if not v:
        got = _list([value for _, value in with_paths])
        raise DtypeError(
            f"{WHO}: the arguments must hold a floating-point leaf to differentiate, got {got}.\n"
            "Pass arrays of floats, for instance x.astype(float), or other argnums."
        )
    problem = Problem(Opaque(f), structure, tuple(varied), tuple(traced), tuple(static), has_aux)
    return Prepared(problem, v, held, leaves, tuple(axes), chosen, _name(f), tuple(fixed))


def with_outputs(prepared: Prepared, out: object, name: str = "f") -> Prepared:
    """Set the outputs of the problem: the places of the floating-point leaves in the result `out`.

    `name` is the name of the function for the message. Raise DtypeError if the result has no floating-point leaf.
    """
    leaves = jax.tree.leaves(out)
    floats = [i for i, x in enumerate(leaves) if _is_inexact(x)]
    outputs = tuple(i for i in floats if np.size(leaves[i]))
    if not floats:
        got = _list(leaves)
        hint = "" if prepared.problem.has_aux else " For a result with aux, pass has_aux=True."
        raise DtypeError(f"{WHO}: {name} must return floats, got {got}.\nOnly floats have a gradient.{hint}")
    return dataclasses.replace(prepared, problem=dataclasses.replace(prepared.problem, outputs=outputs))


def upcast(arrays: Sequence[Array]) -> list[Array]:
    """Return the arrays in float64 or complex128, with integers unchanged. x64 must be enabled."""
    wide = []
    for x in arrays:
        kind = jnp.result_type(x)
        if jnp.issubdtype(kind, jnp.complexfloating):
            x = jnp.asarray(x, jnp.complex128)
        elif jnp.issubdtype(kind, jnp.floating):
            x = x.astype(jnp.float64)
        wide.append(x)
    return wide


@contextmanager
def evaluation(float64: bool) -> Iterator[None]:
    """Set how f runs: in float64 or in the user's dtype, with the highest precision of matrix products.

    f may combine arguments in float64 with its own constants in float32, so JAX's standard promotion replaces the
    user's setting. In float64, `debug_nans` and `debug_infs` are off, because large steps may leave the domain of f. A
    callback that refuses float64 logs no traceback. The check moves arrays between host and device itself, so the
    user's transfer guard is off.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.transfer_guard("allow"))
        stack.enter_context(jax.default_matmul_precision("highest"))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        if float64:
            stack.enter_context(jax.enable_x64(True))
            stack.enter_context(jax.debug_nans(False))
            stack.enter_context(jax.debug_infs(False))
            stack.enter_context(_without_tracebacks())
        yield


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Turn off the log of failing callbacks until the last of several parallel checks ends."""
    global _quiet
    with _LOCK:
        _quiet += 1
        _CALLBACKS.addFilter(_nothing)
    try:
        yield
    finally:
        with _LOCK:
            _quiet -= 1
            if not _quiet:
                _CALLBACKS.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _list(values: Sequence[object]) -> str:
    """Describe the first six values for a message."""
    return ", ".join([*map(given, values[:6]), *(["…"] if len(values) > 6 else [])]) or "nothing"


def _is_inexact(value: object) -> bool:
    dtype = dtype_of(value)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.inexact))


def _no_tangent(value: object) -> object:
    if _is_inexact(value):
        return jnp.zeros_like(jnp.asarray(value))
    return np.zeros(getattr(value, "shape", ()), jax.dtypes.float0)


def _argnums(argnums: int | Sequence[int] | None, n: int) -> tuple[int, ...]:
    if argnums is None:
        return tuple(range(n))
    try:
        chosen = tuple(map(operator.index, argnums if isinstance(argnums, Sequence) else (argnums,)))
    except TypeError:
        raise DtypeError(f"{WHO}: argnums must be one or several whole numbers, got {shown(argnums)}.") from None
    if any(not -n <= i < n for i in chosen):
        raise RangeError(
            f"{WHO}: argnums must be at least {-n} and below {n}, the number of arguments, got {shown(argnums)}."
        )
    chosen = tuple(i % n for i in chosen)
    if not chosen or len(set(chosen)) < len(chosen):
        raise RangeError(f"{WHO}: argnums must name at least one argument and no argument twice, got {shown(argnums)}.")
    return chosen


def _names(f: Callable[..., object], n: int) -> list[str]:
    """Return the names of the n arguments in f's signature; args[i] for an argument without a name."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [named[i] if i < len(named) else f"args[{i}]" for i in range(n)]


def _name(f: Callable[..., object]) -> str:
    f = inspect.unwrap(getattr(f, "func", f))
    name = str(getattr(f, "__qualname__", type(f).__name__))
    if name.endswith("<lambda>") and (code := getattr(f, "__code__", None)):
        return f"lambda at {code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"
    return name.rpartition("<locals>.")[2]

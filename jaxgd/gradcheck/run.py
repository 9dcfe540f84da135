"""Run a function for a batch of inputs, and read its dtypes and other traits from its jaxpr.

A batch runs in one vmapped, jitted call if the function allows it. Otherwise its elements run one by one, under jit
if JAX can trace the function, otherwise eagerly.
"""

import dataclasses
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.typing import DTypeLike

from jaxgd.mesh.processes import on_host
from jaxgd.typed import finfo, jit, tree_leaves

# The memory limit of the elements that run at once, in bytes. Each element counts as one copy of the shared data.
_BYTES_AT_ONCE = 2**28
_MODES = ("vmap", "jit", "eager")
# The compiled programs of earlier checks. Beyond _MOST_PROGRAMS, the least recently used is dropped.
_PROGRAMS: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()
_MOST_PROGRAMS = 64
_LARGEST_CONSTANTS = 2**20
_LOCK = threading.Lock()

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class Objective(Protocol[S_contra, E_contra, R_co]):
    """A function that the check evaluates for many elements, such as points. It is hashable, so it compiles once."""

    def __call__(self, shared: S_contra, element: E_contra, /) -> R_co:
        """Return the result for one element. All elements use the same `shared`."""

    def __hash__(self) -> int:
        """Return the hash. Equal functions share a compiled program."""


def eps_of(dtype: DTypeLike) -> float:
    """Return the distance from 1 to the next larger number of a dtype."""
    return float(finfo(dtype).eps)


class Traits(NamedTuple):
    """The properties of a computation.

    Attributes:
        eps: The largest eps among its float dtypes and float64.
        iterates: True if it iterates until a condition holds.
        float16: True if it computes in float16, whose range is small.
    """

    eps: float
    iterates: bool = False
    float16: bool = False


def traits(fn: Callable[[list[R]], object], v: Sequence[R]) -> Traits:
    """Return the traits of the computation that depends on v. If JAX cannot trace fn, assume float64 and no iteration.

    The dtypes may be narrower than those of v: fn may cast its inputs to float32.
    """
    fine = eps_of("float64")
    try:
        jaxpr: Jaxpr = jax.make_jaxpr(fn)(list(v)).jaxpr
    except Exception:
        return Traits(fine)
    eqns = list(_dependent(jaxpr, set(jaxpr.invars)))
    dtypes = {getattr(x.aval, "dtype", None) for eqn in eqns for x in eqn.outvars} - {None}
    eps = [eps_of(dtype) for dtype in dtypes if dtype is not None and jnp.issubdtype(dtype, jnp.inexact)]
    names = {eqn.primitive.name for eqn in eqns}
    return Traits(max([fine, *eps]), "while" in names, eps_of("float16") in eps)


def ignored(fn: Callable[[list[R]], object], v: Sequence[R]) -> set[int]:
    """Return the indices of the arrays in v that fn ignores, as its jaxpr shows.

    Neither a result nor an effect depends on an ignored array. Return an empty set if JAX cannot trace fn.
    """
    try:
        jaxpr: Jaxpr = jax.make_jaxpr(fn)(list(v)).jaxpr
    except Exception:
        return set()
    needed = _needed(jaxpr, jaxpr.outvars)
    return {i for i, x in enumerate(jaxpr.invars) if x not in needed}


# Primitives that call one jaxpr with their own inputs and results.
_CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat"}


def _needed(jaxpr: Jaxpr, results: Iterable[Var | Literal]) -> set[Var]:
    """Return the variables of a jaxpr on which the given results or its effects depend."""
    needed = {x for x in results if isinstance(x, Var)}
    for eqn in reversed(jaxpr.eqns):
        if not eqn.effects and not needed & set(eqn.outvars):
            continue
        inputs = [True] * len(eqn.invars)
        called = [inner for inner, _ in _called(eqn) if eqn.primitive.name in _CALLS]
        if called and len(called[0].invars) == len(eqn.invars):
            wanted = [x for x, outer in zip(called[0].outvars, eqn.outvars, strict=True) if outer in needed]
            inside = _needed(called[0], wanted)
            inputs = [x in inside for x in called[0].invars]
        needed |= {x for x, used in zip(eqn.invars, inputs, strict=True) if used and isinstance(x, Var)}
    return needed


def _dependent(jaxpr: Jaxpr, tainted: set[Var]) -> Iterator[JaxprEqn]:
    for eqn in jaxpr.eqns:
        if any(isinstance(x, Var) and x in tainted for x in eqn.invars):
            tainted.update(eqn.outvars)
            yield eqn
            for inner, _ in _called(eqn):
                # Every input of the inner jaxpr counts as dependent, although some may not be.
                yield from _dependent(inner, set(inner.invars))


def _called(eqn: JaxprEqn) -> Iterator[tuple[Jaxpr, Sequence[object]]]:
    """Yield the jaxprs that an equation calls, each with its constants."""
    values: list[object] = jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns"))
    for value in values:
        inner = getattr(value, "jaxpr", value)
        if isinstance(inner, Jaxpr):
            yield inner, value.consts if isinstance(value, ClosedJaxpr) else ()


def _constants(jaxpr: Jaxpr, consts: Sequence[object]) -> Iterator[object]:
    """Yield the constants of a jaxpr. Raise TypeError at a callback: a jaxpr's text does not identify its function."""
    yield from consts
    for eqn in jaxpr.eqns:
        if "callback" in eqn.primitive.name:
            raise TypeError
        yield from (x.val for x in eqn.invars if isinstance(x, Literal))
        for inner, inner_consts in _called(eqn):
            yield from _constants(inner, inner_consts)


def _settings() -> tuple[object, ...]:
    names = "jax_enable_x64", "jax_default_matmul_precision"
    return *(getattr(jax.config, name) for name in names), jax.default_backend()


def _compiled(fn: Callable[[S, E], R], shared: S, element: E) -> Callable[[S, E], R]:
    """Return fn compiled for these arguments.

    Every check traces fn, because the functions and values that fn uses may have changed. Only a new trace is compiled.
    The text and the constants of a trace identify it. A program is not kept for later checks if its trace calls back to
    Python, if the text holds memory addresses, or if the constants are larger than 1 MiB.
    """
    args = shared, element
    traced = jit(lambda *args: fn(*args)).trace(*args)
    jaxpr: Jaxpr = traced.jaxpr.jaxpr
    text = str(jaxpr)
    program: Callable[[S, E], R] | None
    try:
        held = list(_constants(jaxpr, traced.jaxpr.consts))
        if " at 0x" in text or sum(getattr(c, "nbytes", 0) for c in held) > _LARGEST_CONSTANTS:
            return _built(traced)
        values = tuple((str(jnp.result_type(c)), on_host(c).shape, on_host(c).tobytes()) for c in held)
    except (AttributeError, TypeError):
        return _built(traced)
    key = text, values, _shapes(args), jax.tree.structure(args), _settings()
    with _LOCK:
        program = _PROGRAMS.pop(key, None)
    program = program or _built(traced)
    with _LOCK:
        _PROGRAMS[key] = program
        while len(_PROGRAMS) > _MOST_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    return program


def _built(traced: jax.stages.Traced) -> Callable[..., Any]:
    program: Callable[..., Any] = traced.lower().compile()
    return program


def _shapes(args: object) -> tuple[Hashable, ...]:
    return tuple((str(getattr(x, "dtype", type(x))), np.shape(x), _division(x)) for x in tree_leaves(args))


def _division(x: object) -> jax.sharding.Sharding | None:
    """Return the sharding of an array on several devices, otherwise None. A program is compiled for one sharding."""
    return x.sharding if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1 else None


def single(fn: Callable[[S, E], R], shared: S, element: E) -> R:
    """Return fn(shared, element) under jit, as NumPy arrays."""
    out: R = jax.tree.map(on_host, _compiled(fn, shared, element)(shared, element))
    return out


@dataclasses.dataclass(frozen=True)
class _Batched(Generic[S, E, R]):
    """A function that runs fn for a whole batch, `size` elements at a time."""

    fn: Objective[S, E, R]
    size: int

    def __call__(self, shared: S, batch: E) -> R:
        out: R = jax.lax.map(lambda element: self.fn(shared, element), batch, batch_size=self.size)
        return out


@dataclasses.dataclass
class Runner:
    """A runner of fn(shared, element) for batches.

    It remembers for each fn the first of the modes vmap, jit and eager that works.

    Attributes:
        without_vmap: True to run fn under jit or eagerly only.
        modes: The mode in which each fn last ran.
        runs: The number of elements for which each fn ran, padding included.
        seconds: The seconds per element of each fn, in its fastest batch. They may include compilation.
        programs: The compiled programs of this check.
    """

    without_vmap: bool = False
    modes: dict[Hashable, str] = dataclasses.field(default_factory=dict)
    runs: dict[Hashable, int] = dataclasses.field(default_factory=dict)
    seconds: dict[Hashable, float] = dataclasses.field(default_factory=dict)
    programs: dict[Hashable, Callable[..., Any]] = dataclasses.field(default_factory=dict)

    def __call__(self, fn: Objective[S, E, R], shared: S, batch: E) -> R:
        """Return the results of fn for a batch, stacked as NumPy arrays.

        The leaves of `batch` have the batch as their leading axis. If an eager run raises for every element, the first
        exception passes through.
        """
        n = len(tree_leaves(batch)[0])
        first = self.modes.get(fn, "jit" if self.without_vmap else "vmap")
        for mode in _MODES[_MODES.index(first) :]:
            start = time.perf_counter()
            try:
                out, ran = self._run(mode, fn, shared, batch, n)
            except Exception:
                if mode == "eager":
                    raise
                continue
            self.modes[fn] = mode
            self.runs[fn] = self.runs.get(fn, 0) + ran
            self.seconds[fn] = min(self.seconds.get(fn, math.inf), (time.perf_counter() - start) / max(ran, 1))
            return out
        raise AssertionError("eager mode neither returned nor raised")

    def _run(self, mode: str, fn: Objective[S, E, R], shared: S, batch: E, n: int) -> tuple[R, int]:
        if mode == "vmap":
            held = sum(x.nbytes for x in jax.tree.leaves(shared) if hasattr(x, "nbytes"))
            size = int(np.clip(_BYTES_AT_ONCE // max(held, 1), 1, 128))
            # Pad to a multiple of eight, so that few programs cover batches of every size.
            size = min(size, -(-n // 8) * 8 if n > 4 else n)
            padding = -n % size
            arrays = jax.tree.map(on_host, batch)
            batch = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], padding, axis=0)]), arrays)
            out = self._program(_Batched(fn, size), shared, batch)(shared, batch)
            return jax.tree.map(lambda x: on_host(x)[:n], out), n + padding
        elements = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), batch) for i in range(n)]
        if mode == "jit":
            run = self._program(fn, shared, elements[0])
            each = [run(shared, element) for element in elements]
        else:
            each = _eagerly(fn, shared, elements)
        return jax.tree.map(lambda *xs: np.stack([on_host(x) for x in xs]), *each), n

    def _program(self, fn: Objective[S, E, R], shared: S, element: E) -> Callable[..., R]:
        """Return the compiled fn. One check traces fn once for each set of shapes."""
        key = fn, _shapes((shared, element)), _settings()
        if key not in self.programs:
            self.programs[key] = _compiled(fn, shared, element)
        return self.programs[key]


def _eagerly(fn: Callable[[S, E], R], shared: S, elements: list[E]) -> list[R]:
    """Return the results of all elements, with NaN where fn raises, for instance outside its domain.

    Raise if fn raises for every element.
    """
    results: list[R | None] = []
    first = None
    for element in elements:
        try:
            results.append(fn(shared, element))
        except Exception as error:
            first = first or error
            results.append(None)
    like = next((result for result in results if result is not None), None)
    if like is None and first is not None:
        raise first
    nothing = jax.tree.map(lambda x: np.full(np.shape(x), np.nan, jnp.result_type(x)), like)
    return [nothing if result is None else result for result in results]

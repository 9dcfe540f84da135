"""Run a function over many lanes: in one vmapped, jitted call if the function allows it, otherwise one by one.

A lane is one element of a batch: the arguments of one run of the function.
"""

import dataclasses
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.gradcheck.dtypes import constants

# Each lane of a call holds one copy of the variables. Lanes that need more memory than this run in several batches.
_BYTES_AT_ONCE = 2**28
_MODES = ("vmap", "jit", "eager")


# The compiled programs of earlier checks. When there are more than _MOST_PROGRAMS, the least recently used is dropped.
_PROGRAMS: OrderedDict[Any, Any] = OrderedDict()
_MOST_PROGRAMS = 64
_LARGEST_CONSTANTS = 2**20


def _compiled(fn: Callable[..., Any], *args: Any) -> Any:
    """Return fn compiled for these arguments.

    Every check traces fn, because the functions and values that fn uses may have changed. Only a new trace is compiled.
    The text and the constants of a trace identify it. A trace is not cached if its text holds memory addresses, which
    identify nothing, or if its constants are larger than 1 MiB.
    """
    traced = jax.jit(lambda *args: fn(*args)).trace(*args)
    text, held = str(traced.jaxpr.jaxpr), list(constants(traced.jaxpr.jaxpr, traced.jaxpr.consts))
    if " at 0x" in text or sum(getattr(c, "nbytes", 0) for c in held) > _LARGEST_CONSTANTS:
        return traced.lower().compile()
    try:
        values = tuple((str(jnp.result_type(c)), np.shape(c), np.asarray(c).tobytes()) for c in held)
    except (AttributeError, TypeError):
        return traced.lower().compile()
    shapes = tuple((str(getattr(x, "dtype", type(x))), np.shape(x)) for x in jax.tree.leaves(args))
    key = text, values, shapes, jax.tree.structure(args), _settings()
    if key not in _PROGRAMS:
        _PROGRAMS[key] = traced.lower().compile()
        if len(_PROGRAMS) > _MOST_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    _PROGRAMS.move_to_end(key)
    return _PROGRAMS[key]


def _settings() -> tuple[Any, ...]:
    config: Any = jax.config
    return config.jax_enable_x64, config.jax_default_matmul_precision, jax.default_backend()


@dataclasses.dataclass(frozen=True)
class _Batched:
    """The function that runs fn over all lanes, `batch` lanes at once."""

    fn: Callable[..., Any]
    batch: int

    def __call__(self, shared: Any, lanes: Any) -> Any:
        return jax.lax.map(lambda lane: self.fn(shared, lane), lanes, batch_size=self.batch)


@dataclasses.dataclass
class Lanes:
    """A runner of fn(shared, lane) for every lane.

    It counts the runs, and remembers for each fn the fastest mode that works.

    Attributes:
        without_vmap: True to run fn under jit or eagerly only.
        modes: The mode in which each fn ran: vmap, jit or eager.
        refused: The exception of each fn and mode that did not work, as text.
        runs: The number of lanes of each fn that were run, padding included.
        seconds: The least time of one lane of each fn, in seconds.
        programs: The compiled programs of this check.
    """

    without_vmap: bool = False
    modes: dict[Any, str] = dataclasses.field(default_factory=dict)
    refused: dict[Any, str] = dataclasses.field(default_factory=dict)
    runs: dict[Any, int] = dataclasses.field(default_factory=dict)
    seconds: dict[Any, float] = dataclasses.field(default_factory=dict)
    programs: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, fn: Callable[..., Any], shared: Any, lanes: Any) -> Any:
        """Return the results of fn for all lanes as stacked NumPy arrays.

        `lanes` is a pytree whose leaves have the lanes as their leading axis. If fn raises for every lane in an eager
        run, the first exception passes through unchanged.
        """
        n = len(jax.tree.leaves(lanes)[0])
        first = self.modes.get(fn, "jit" if self.without_vmap else "vmap")
        for mode in _MODES[_MODES.index(first) :]:
            start = time.perf_counter()
            try:
                out, ran = self._run(mode, fn, shared, lanes, n)
            except Exception as error:
                if mode == "eager":
                    raise
                self.refused.setdefault((fn, mode), f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
                continue
            self.modes[fn] = mode
            self.runs[fn] = self.runs.get(fn, 0) + ran
            self.seconds[fn] = min(self.seconds.get(fn, math.inf), (time.perf_counter() - start) / max(ran, 1))
            return out
        raise AssertionError("the last mode returns or raises")

    def affordable(self, fn: Callable[..., Any], seconds: float) -> int:
        """Return the number of lanes of fn that fit into this time, at the best speed of a call so far.

        The time of a call includes compilation.
        """
        return int(seconds / max(self.seconds.get(fn, 0.0), 1e-6))

    def count(self, fn: Callable[..., Any]) -> int:
        """Return the number of lanes of fn that were run so far, padding included."""
        return self.runs.get(fn, 0)

    def _run(self, mode: str, fn: Callable[..., Any], shared: Any, lanes: Any, n: int) -> tuple[Any, int]:
        if mode == "vmap":
            size = sum(x.nbytes for x in jax.tree.leaves(shared) if hasattr(x, "nbytes"))
            batch = int(np.clip(_BYTES_AT_ONCE // max(size, 1), 1, 128))
            # Pad to a multiple of eight, so that few programs cover every number of lanes.
            batch = min(batch, -(-n // 8) * 8 if n > 4 else n)
            padding = -n % batch
            lanes = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], padding, axis=0)]), _numpy(lanes))
            out = self._program(_Batched(fn, batch), shared, lanes)(shared, lanes)
            return jax.tree.map(lambda x: np.asarray(x)[:n], out), n + padding
        lane = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), lanes) for i in range(n)]
        run = self._program(fn, shared, lane[0]) if mode == "jit" else fn
        each = [run(shared, x) for x in lane] if mode == "jit" else _eagerly(fn, shared, lane)
        return jax.tree.map(lambda *xs: np.stack([np.asarray(x) for x in xs]), *each), n

    def _program(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Return the compiled fn. A check traces fn once for the same shapes."""
        shapes = tuple((str(getattr(x, "dtype", type(x))), np.shape(x)) for x in jax.tree.leaves(args))
        key = fn, shapes, _settings()
        if key not in self.programs:
            self.programs[key] = _compiled(fn, *args)
        return self.programs[key]


def _eagerly(fn: Callable[..., Any], shared: Any, lanes: list[Any]) -> list[Any]:
    """Return the results of all lanes, with NaN for a lane in which fn raises. Raise if fn raises in every lane.

    Some steps may leave a domain that f guards with an exception.
    """
    results, first = [], None
    for lane in lanes:
        try:
            results.append(fn(shared, lane))
        except Exception as error:
            first = first or error
            results.append(None)
    like = next((result for result in results if result is not None), None)
    if like is None and first is not None:
        raise first
    nothing = jax.tree.map(lambda x: np.full(np.shape(x), np.nan, jnp.result_type(x)), like)
    return [nothing if result is None else result for result in results]


def _numpy(lanes: Any) -> Any:
    return jax.tree.map(np.asarray, lanes)


def single(fn: Callable[..., Any], shared: Any, lane: Any) -> Any:
    """Return fn(shared, lane), jitted."""
    return _compiled(fn, shared, lane)(shared, lane)

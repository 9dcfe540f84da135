"""Runs a function over many lanes: in one vmapped, jitted call where the function allows it, else more slowly."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Lanes side by side hold one copy of the variables each; beyond this they go in several rounds.
_BYTES_AT_ONCE = 2**28
_MODES = ("vmap", "jit", "eager")


@functools.lru_cache(maxsize=64)
def _compiled(fn: Callable[..., Any], batch: int) -> Any:
    """The jitted function, kept so that checking the same f again compiles nothing; the least recent is let go."""
    if batch == 0:
        return jax.jit(fn)
    return jax.jit(lambda shared, lanes: jax.lax.map(lambda lane: fn(shared, lane), lanes, batch_size=batch))


@dataclasses.dataclass
class Lanes:
    """fn(shared, lane) for every lane; counts what it ran and remembers how each fn could be run."""

    without_vmap: bool = False
    modes: dict[Any, str] = dataclasses.field(default_factory=dict)
    refused: dict[Any, str] = dataclasses.field(default_factory=dict)
    runs: dict[Any, int] = dataclasses.field(default_factory=dict)
    seconds: dict[Any, float] = dataclasses.field(default_factory=dict)

    def __call__(self, fn: Callable[..., Any], shared: Any, lanes: Any) -> Any:
        """The results, stacked, as NumPy arrays.

        `lanes` is a pytree whose leaves have the lanes as their leading axis. Whatever fn raises when run eagerly comes
        through as it is.
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
        """How many lanes of fn fit into so many seconds, going by the quickest so far; compilation may count in it."""
        return int(seconds / max(self.seconds.get(fn, 0.0), 1e-6))

    def count(self, fn: Callable[..., Any]) -> int:
        """How many lanes of fn were run, padding counted."""
        return self.runs.get(fn, 0)

    def _run(self, mode: str, fn: Callable[..., Any], shared: Any, lanes: Any, n: int) -> tuple[Any, int]:
        if mode == "vmap":
            size = sum(x.nbytes for x in jax.tree.leaves(shared) if hasattr(x, "nbytes"))
            batch = int(np.clip(_BYTES_AT_ONCE // max(size, 1), 1, 128))
            # Padded to a multiple of eight, so that fewer programs serve every number of lanes.
            batch = min(batch, -(-n // 8) * 8 if n > 4 else n)
            padding = -n % batch
            lanes = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], padding, axis=0)]), _numpy(lanes))
            out = _compiled(fn, batch)(shared, lanes)
            return jax.tree.map(lambda x: np.asarray(x)[:n], out), n + padding
        run = _compiled(fn, 0) if mode == "jit" else fn
        each = [run(shared, jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), lanes)) for i in range(n)]
        return jax.tree.map(lambda *xs: np.stack([np.asarray(x) for x in xs]), *each), n


def _numpy(lanes: Any) -> Any:
    return jax.tree.map(np.asarray, lanes)


def single(fn: Callable[..., Any], shared: Any, lane: Any) -> Any:
    """fn(shared, lane), jitted."""
    return _compiled(fn, 0)(shared, lane)

"""The points of a sweep, and the groups of networks that are trained together."""

import collections
import dataclasses
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import jax
import numpy as np

from jaxgd.errors import (
    DtypeError,
    RangeError,
    describe,
    require_count,
    require_positive,
    require_sizes,
    shown,
)

# Largest number of networks per group and device. Larger groups do not train faster on a CPU. Processes and parts take
# whole groups, so smaller groups divide a sweep more evenly.
_MOST = 128
# Largest number of rows of a table. A row takes about 100 bytes in memory.
_MOST_ROWS = 10**9


@dataclasses.dataclass(frozen=True)
class Points:
    """The points of a sweep: every combination of sizes, η and seed, in this order.

    Attributes:
        sizes: The widths of the networks.
        eta: The learning rates.
        seeds: The seeds of the first weights and of the order of examples.
    """

    sizes: tuple[tuple[int, ...], ...]
    eta: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def per_sizes(self) -> int:
        """The number of networks of one size."""
        return len(self.eta) * len(self.seeds)


class Group(NamedTuple):
    """Networks of equal sizes that are trained together.

    Attributes:
        number: The number of the group in the sweep, from 0.
        sizes: The widths of its networks.
        eta: The learning rate of each network.
        seeds: The seed of each network.
        width: The number of networks in the compiled program, at least the number of networks in the group.
    """

    number: int
    sizes: tuple[int, ...]
    eta: tuple[float, ...]
    seeds: tuple[int, ...]
    width: int


def require_points(sizes: object, eta: object, seeds: object, epochs: int, dtype: np.dtype[Any]) -> Points:
    """Return the points.

    Raise unless sizes, eta and seeds hold valid, different values, and the table has at most `_MOST_ROWS` rows.
    """
    several = sizes if _is_list(sizes) and len(sizes) and all(map(_is_list, sizes)) else [sizes]
    widths = [require_sizes("sweep", each) for each in several]
    rates: list[Any] = list(eta) if _is_list(eta) else [eta]
    for rate in rates:
        require_positive("sweep", "eta", rate)
        with np.errstate(over="ignore"):
            require_positive("sweep", f"eta in {dtype}", np.asarray(rate).astype(dtype))
    each_seed: Sequence[int]
    if _is_list(seeds):
        for seed in seeds:
            require_count("sweep", "each of seeds", seed, least=0, most=2**32 - 1)
        each_seed = tuple(map(int, seeds))
    else:
        require_count("sweep", "seeds", seeds, most=2**32)
        each_seed = range(operator.index(seeds))  # type: ignore[arg-type]
    for name, values in (("sizes", widths), ("eta", rates), ("seeds", each_seed)):
        if not len(values):
            raise RangeError(f"sweep: {name} must hold at least one value, got none.\nPass one value or more.")
    if (count := len(widths) * len(rates) * len(each_seed) * (epochs + 1)) > _MOST_ROWS:
        raise RangeError(
            f"sweep: the table must have at most {_MOST_ROWS:,} rows, one for each network and epoch, got {count:,}.\n"
            "Make several sweeps."
        )
    rounded: Sequence[float] = [float(np.asarray(rate).astype(dtype)) for rate in rates]
    for name, each, note in (("sizes", widths, ""), ("eta", rounded, f" in {dtype}"), ("seeds", each_seed, "")):
        if twice := [value for value, times in collections.Counter(each).items() if times > 1]:
            raise RangeError(
                f"sweep: {name} must hold different values{note}, got {shown(twice[0], str)} more than once.\n"
                "Pass each value once."
            )
    return Points(tuple(widths), tuple(map(float, rates)), tuple(each_seed))


def _is_list(x: object) -> TypeGuard[Sequence[Any]]:
    several = isinstance(x, Sequence | np.ndarray | jax.Array) and not isinstance(x, str | bytes)
    return several and getattr(x, "shape", None) != ()


def require_part(part: object, networks: int) -> tuple[int, int]:
    """Return the part, counted from 1, and the number of parts; (1, 1) for None."""
    if part is None:
        return 1, 1
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise DtypeError(
            f"sweep: part must be a pair such as (2, 8), got {describe(part)}.\nPass (2, 8) for part 2 of 8."
        )
    require_count("sweep", "the number of parts", part[1], most=networks)
    require_count("sweep", "the first number in part", part[0], most=int(part[1]))
    return int(part[0]), int(part[1])


def bytes_per_network(sizes: Sequence[int], examples: int, batch_size: int, itemsize: int, backend: str) -> int:
    """Return the memory in bytes that a group needs for each of its networks.

    The memory holds six arrays of the size of the weights, the activations of a mini-batch and the order of the
    examples. Unless the backend is native, it also holds the outputs of all examples.
    """
    weights = sum(a * b + b for a, b in itertools.pairwise(sizes))
    outputs = 0 if backend == "native" else 3 * examples * sizes[-1]
    return itemsize * (6 * weights + 3 * batch_size * sum(sizes) + outputs) + 16 * examples


def group_counts(points: Points, per_network: Sequence[int], memory: int, parts: int) -> list[int]:
    """Return the number of groups per network size.

    Every group of two or more networks fits in the memory, and every part has a group.
    """
    total = points.per_sizes
    most = [min(max(memory // need, 1), _MOST * jax.local_device_count()) for need in per_network]
    return [max(-(-total // n), min(parts, total)) for n in most]


def groups_of(points: Points, counts: Sequence[int]) -> list[Group]:
    """Return the groups of the sweep in the order of its points."""
    pairs = list(itertools.product(points.eta, points.seeds))
    groups: list[Group] = []
    for sizes, count in zip(points.sizes, counts, strict=True):
        for i in range(count):
            eta, seeds = zip(*pairs[i * len(pairs) // count : (i + 1) * len(pairs) // count], strict=True)
            groups.append(Group(len(groups), sizes, eta, seeds, -(-len(pairs) // count)))
    return groups


def name_of(sizes: Sequence[int]) -> str:
    """Return the sizes as text.

    >>> name_of((784, 30, 10))
    '784-30-10'
    """
    return "-".join(map(str, sizes))

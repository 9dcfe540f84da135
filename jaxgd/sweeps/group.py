"""Train a group of networks of equal sizes. Each epoch is one call of a compiled program for the whole group."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array
from numpy.typing import NDArray

from jaxgd import epoch
from jaxgd.chunks import Batched
from jaxgd.epoch import Rates, Splits, StaticConfig
from jaxgd.history import TrainState
from jaxgd.network import Layer, Network, first_network
from jaxgd.outcome import Reason
from jaxgd.pytree import norm, subtract
from jaxgd.rules import gradient_descent
from jaxgd.sweeps.fixed import is_fixed
from jaxgd.sweeps.plan import Group
from jaxgd.typed import jit, tree_leaves, vmap

COLUMNS = (
    *("cost", "accuracy", "validation_cost", "validation_accuracy", "test_cost", "test_accuracy"),
    "step_norm",
)
# `advance` compiles a smaller program without the ended networks if this saves more multiplications of forward passes
# than this number. A CPU takes about two seconds for this number, as long as for a compilation.
_WORTH = 3e9
# Placements on several devices: `_NETWORKS` gives each device a part of the networks, `_SAME` the same data.
_NETWORKS, _SAME = P("networks"), P()  # type: ignore[no-untyped-call]


class Progress(NamedTuple):
    """The state of a group between two epochs, in the host's memory. A network is given by its index in the group.

    Attributes:
        epoch: The number of epochs done; −1 before the first evaluation.
        values: The values of `COLUMNS` by epoch and network, (epochs + 1, columns, networks).
        last: For each network, the last epoch that has a row in the table, (networks,).
        codes: For each network, the code of its outcome, (networks,).
        still: True for each network whose weights did not change in its latest epoch, (networks,).
        ended: True for each network whose training has ended, (networks,).
        members: The network at each index of the batch, (width,).
        batch: The arrays of the networks in `members`, by name: weights, key, cost and, in full-batch training, the
            gradient.
    """

    epoch: int
    values: NDArray[np.floating[Any]]
    last: NDArray[np.int32]
    codes: NDArray[np.int32]
    still: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    members: NDArray[np.int32]
    batch: dict[str, np.ndarray]


AfterEpoch = Callable[[int, Callable[[], Progress]], bool]
"""A function that is called after each epoch. `advance` describes its arguments."""


def begin(group: Group, scheme: str, epochs: int) -> Progress:
    """Return the state of a group before the first evaluation."""
    # Compiling one program that draws all networks would take as long as drawing 2,000 networks in this loop.
    drawn = {seed: first_network(seed, group.sizes, scheme) for seed in dict.fromkeys(group.seeds)}
    n = len(group.seeds)
    members = np.minimum(np.arange(group.width), n - 1)
    seeds = [group.seeds[int(i)] for i in members]
    network: Network = jax.tree.map(lambda *xs: np.stack(xs), *(drawn[seed][0] for seed in seeds))
    dtype = np.dtype(jnp.promote_types(network[-1].b.dtype, np.float32))
    return Progress(
        epoch=-1,
        values=np.full((epochs + 1, len(COLUMNS), n), np.nan, dtype),
        last=np.zeros(n, np.int32),
        codes=np.full(n, int(Reason.RUNNING), np.int32),
        still=np.zeros(n, bool),
        ended=np.zeros(n, bool),
        members=members.astype(np.int32),
        batch={
            **_named("network", network),
            "key": np.stack([jax.random.key_data(drawn[seed][1]) for seed in seeds]),
            "cost": np.full(group.width, np.nan, dtype),
        },
    )


def advance(
    group: Group,
    progress: Progress,
    splits: Splits,
    config: StaticConfig,
    after_epoch: AfterEpoch,
) -> Progress:
    """Train a group until each network has ended or made all epochs, or until `after_epoch` returns True.

    Args:
        group: The group.
        progress: The state from `begin`, or the state at which an earlier call stopped.
        splits: The examples.
        config: The static configuration of an epoch.
        after_epoch: A function that is called as after_epoch(done, now) after the first evaluation and after each
            epoch. `done` is the number of epochs done, summed over the networks. An ended network counts as if it had
            made all epochs. `now()` returns the state. `after_epoch` returns True to stop.

    Returns:
        The state at the end.
    """
    devices: tuple[jax.Device, ...] = tuple(jax.local_devices())
    devices = devices if len(group.seeds) >= len(devices) else devices[:1]
    epochs, eta = len(progress.values) - 1, np.asarray(group.eta, progress.values.dtype)
    work = len(splits.train.y) * sum(a * b for a, b in itertools.pairwise(group.sizes))
    k, members, batch = progress.epoch, progress.members, progress.batch
    values, last, codes = progress.values.copy(), progress.last.copy(), progress.codes.copy()
    still, ended = progress.still.copy(), progress.ended.copy()
    state: TrainState | None = None

    def now() -> Progress:
        return Progress(k, values, last, codes, still, ended, members, batch if state is None else _fetched(state))

    while k < epochs and not ended.all():
        if state is None:
            state, rates = _placed(batch, eta[members], k, devices)
            batched = Batched(len(rates) // len(devices), data_sets=1)
            static = dataclasses.replace(config, objective=dataclasses.replace(config.objective, batched=batched))
        run = epoch.start if k < 0 else epoch.advance
        state, *numbers = _step(run, state, splits, rates, config=static, devices=devices)
        entries: np.ndarray
        reached: NDArray[np.int32]
        same: NDArray[np.bool_]
        entries, reached, same = (np.asarray(x)[: len(members)] for x in numbers)
        k += 1
        # The batch may contain networks that have ended, and its last indices may repeat a network.
        at = np.unique(members, return_index=True)[1]
        at = at[~ended[members[at]]]
        failed = reached[at] == Reason.NOT_FINITE
        codes[members[at]] = np.where(failed & (k == 0), int(Reason.START_NOT_FINITE), reached[at])
        going = at[~failed] if k else at
        values[k][:, members[going]], last[members[going]] = entries[going].T, k
        ended[members[at]] = failed
        same = same & (k > 0)
        unchanged = at[same[at] & ~still[members[at]] & np.isin(reached[at], (Reason.UNCHANGED, Reason.SATURATED))]
        still[members[at]] = same[at]
        for i in unchanged if k < epochs else ():
            # In full-batch training, a network that one update leaves unchanged never changes again.
            ended[members[i]] = config.batch_size is None or bool(is_fixed(state.network, i, rates, splits.train))
        active = at[~ended[members[at]]]
        width = _width(len(active), group.width)
        if len(active) and (len(members) - width) * (epochs - k) * work > _WORTH:
            kept = np.resize(active, width)
            batch, members, state = {name: x[kept] for name, x in _fetched(state).items()}, members[kept], None
        if after_epoch(int(np.where(ended, epochs, k).sum()), now):
            break
    return now()


def networks_of(group: Group, progress: Progress, some: list[int]) -> list[Network]:
    """Return some networks of the batch, given by their indices in the group."""
    at = [int(np.flatnonzero(progress.members == i)[0]) for i in some]
    return [_network("network", progress.batch, len(group.sizes) - 1, i) for i in at]


def _width(active: int, width: int) -> int:
    """Halve the width, rounded up, while the half holds the active networks. Return the last width."""
    while width > 1 and -(-width // 2) >= active:
        width = -(-width // 2)
    return width


def _named(prefix: str, network: Network) -> dict[str, np.ndarray]:
    return {
        f"{prefix}.{i}.{name}": np.asarray(x)
        for i, layer in enumerate(network)
        for name, x in zip(Layer._fields, layer, strict=True)
    }


def _network(prefix: str, arrays: dict[str, np.ndarray], layers: int, at: int | slice = slice(None)) -> Network:
    return tuple(Layer(arrays[f"{prefix}.{i}.w"][at], arrays[f"{prefix}.{i}.b"][at]) for i in range(layers))


def _fetched(state: TrainState) -> dict[str, np.ndarray]:
    gradient = {} if state.gradient is None else _named("gradient", state.gradient)
    rest = {"key": np.asarray(jax.random.key_data(state.key)), "cost": np.asarray(state.cost)}
    return {**_named("network", state.network), **rest, **gradient}


def _placed(
    batch: dict[str, np.ndarray], eta: np.ndarray, k: int, devices: tuple[jax.Device, ...]
) -> tuple[TrainState, Array]:
    """Return the state of the batch and η, divided equally among the devices."""
    width = -(-len(eta) // len(devices)) * len(devices)
    batch, eta = {name: np.resize(x, (width, *x.shape[1:])) for name, x in batch.items()}, np.resize(eta, width)
    layers = sum(name.startswith("network.") for name in batch) // 2
    network = _network("network", batch, layers)
    arrays: Any = TrainState(
        network=network,
        optimizer_state=gradient_descent(1.0).init(network),
        key=batch["key"],  # type: ignore[arg-type]
        epoch=np.full(width, max(k, 0), np.int32),  # type: ignore[arg-type]
        cost=batch["cost"],  # type: ignore[arg-type]
        gradient=_network("gradient", batch, layers) if "gradient.0.w" in batch else None,
    )
    where = NamedSharding(_mesh(devices), _NETWORKS) if len(devices) > 1 else None
    state: TrainState
    rates: Array
    state, rates = jax.device_put((arrays, eta), where)
    return state._replace(key=jax.random.wrap_key_data(state.key, impl="threefry2x32")), rates


def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    return Mesh(np.array(devices), ("networks",))


@jit(static_argnames=("run", "config", "devices"))
def _step(
    run: epoch.Advance,
    state: TrainState,
    splits: Splits,
    eta: Array,
    *,
    config: StaticConfig,
    devices: tuple[jax.Device, ...],
) -> tuple[TrainState, Array, Array, Array]:
    """Call `run`, which is an epoch or the first evaluation, for every network. Each network is on one device.

    Return the states, the values of `COLUMNS`, the codes, and True for each network whose weights kept all their bits.
    """

    def on_device(state: TrainState, splits: Splits, eta: Array) -> tuple[TrainState, Array, Array, Array]:
        def one(state: TrainState, eta: Array) -> tuple[TrainState, epoch.Entry, Array]:
            return run(state, splits, Rates(eta), config)

        after, (entry, code), finite = vmap(one)(state, eta)
        # Under vmap, the rounding of a norm would depend on the number of networks.
        steps: Array = jax.lax.map(lambda pair: norm(subtract(*pair)), (after.network, state.network))
        entry = entry._replace(step_norm=jnp.where(jnp.isnan(entry.step_norm), jnp.nan, steps))
        same = vmap(_same_bits)(after.network, state.network)
        columns: list[Array] = [getattr(entry, name) for name in COLUMNS]
        values = jnp.stack(columns, axis=1)
        return after, values, jnp.where(finite, code, int(Reason.NOT_FINITE)), same

    if len(devices) == 1:
        return on_device(state, splits, eta)
    # Each device runs its own networks, so the devices exchange nothing.
    parted = jax.shard_map(
        on_device, mesh=_mesh(devices), in_specs=(_NETWORKS, _SAME, _NETWORKS), out_specs=_NETWORKS, check_vma=False
    )
    out: tuple[TrainState, Array, Array, Array] = parted(state, splits, eta)
    return out


def _same_bits(a: Network, b: Network) -> Array:
    def bits(x: Array) -> Array:
        return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")

    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return jnp.all(jnp.stack([jnp.all(bits(x) == bits(y)) for x, y in pairs]))

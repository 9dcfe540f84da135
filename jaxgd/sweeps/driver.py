"""`sweep`, which trains many networks in groups, and `merge_sweep`, which joins the parts of a sweep."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.chunks import Budget, budget_of
from jaxgd.cost import quadratic_cost
from jaxgd.data import Dataset
from jaxgd.epoch import Splits, StaticConfig
from jaxgd.errors import (
    CheckpointError,
    DtypeError,
    RangeError,
    is_traced,
    largest_int,
    require_bool,
    require_callable,
    require_choice,
    require_count,
    shown,
)
from jaxgd.examples import Examples, fit_splits
from jaxgd.files import as_path, free_memory
from jaxgd.kernels import BackendChoice, Job, backend, select_backend, xla
from jaxgd.kernels.registry import kernel_names
from jaxgd.mesh.processes import process_count, spans_processes
from jaxgd.network import Network, init_network
from jaxgd.run_folder import made_with
from jaxgd.sweeps.folder import SweepFolder
from jaxgd.sweeps.group import AfterEpoch, Progress, advance, begin
from jaxgd.sweeps.plan import (
    Group,
    Points,
    bytes_per_network,
    group_counts,
    groups_of,
    name_of,
    require_part,
    require_points,
)
from jaxgd.sweeps.run import run_groups
from jaxgd.sweeps.table import Sweep, best, joined
from jaxgd.typed import eval_shape, tree_leaves

# The free memory to assume, in bytes, if the system does not report it.
_UNKNOWN = 2**33


def sweep(
    data: Dataset | tuple[Any, Any],
    *,
    sizes: Any,
    eta: Any,
    seeds: Any,
    epochs: int,
    folder: str | Path | None = None,
    batch_size: int | None = 10,
    scheme: str = "gaussian",
    kernel: str = "auto",
    keep: int = 0,
    part: tuple[int, int] | None = None,
    memory: int | None = None,
    progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Sweep:
    """Train a network for every combination of sizes, η and seed, and return a table of every epoch.

    Each network makes the same updates v → v − η∇C as in `train`, on the quadratic cost. One compiled program trains a
    group of networks of equal sizes. A seed gives the same first weights and the same order of examples as in
    `jaxgd train --seed`. With the native backend, the trained weights are the same too, bit for bit. XLA rounds a group
    differently from a single network.

    With a folder, the same call continues a sweep that was killed or stopped. If the sweep is complete, the call
    returns its table without training. With the same versions and kind of device, the table equals the table of an
    uninterrupted sweep, bit for bit. With XLA, the number of devices must also be the same.

    The training of a network ends early, with the outcome NOT_FINITE, if its cost or a weight becomes infinite or NaN.
    The last row of the network is then its last finite epoch. A network that is not finite at the start has the outcome
    START_NOT_FINITE and only the row of epoch 0. The training also ends, with the outcome SATURATED or UNCHANGED, if
    the cost is above 10⁻³, an epoch changed no weight, and provably no mini-batch can change a weight. That epoch is
    then the last row.

    All devices of a process share the networks of a group. A group of fewer networks than devices runs on one device.
    In a job of P processes, process p, counted from 0, runs the groups p, p + P, …. Process 0 writes the joined table.

    Args:
        data: A `Dataset`, or a pair (x, y) of training examples, as for `train`.
        sizes: The widths (inputs, …, outputs) of the networks, or a list of such tuples.
        eta: The learning rate η, or a list of several. Each is above 0.
        seeds: A number N for the seeds 0 to N − 1, or a list of seeds from 0 to 2³² − 1.
        epochs: The number of epochs of each network, 1 or more.
        folder: A new or empty folder, or the folder of the same sweep. By default nothing is written.
        batch_size: Examples per mini-batch, 1 to n. None is the full batch. Default 10.
        scheme: The first weights, "gaussian" (default) or "scaled", as in `init_network`.
        kernel: The backend, as for `train`. Default "auto".
        keep: The number of networks to save for each network size, as `network-….safetensors`. The networks with the
            outcome COMPLETED and the best last accuracy are saved. The accuracy is that on the validation set. Data
            without a validation set use the test set, and data with neither use the training set. Default 0.
        part: (i, n) runs only part i of n, counted from 1, for jobs that share a folder and do not communicate. Join
            the parts with `merge_sweep`. By default all parts.
        memory: The memory in bytes for a group of networks. By default a quarter of the free memory of the machine or
            of its accelerators. Later calls with the folder use the value of the first call. Another value
            raises CheckpointError.
        progress: True to show a progress bar on stderr if that is a terminal. Default False.
        stop: A function without arguments. `sweep` calls it before each epoch, and repeatedly while it waits for other
            processes of the job. If it returns True, the sweep stops, and saves its state if it has a folder. By
            default the sweep runs to the end.

    Returns:
        The table, the paths of the saved networks, and the backends. `complete` is False for one of several parts, and
        after a stop.

    Raises:
        RangeError: If a number is out of range, a name is unknown, a list is empty or holds a value twice, the data
            have padding or span several processes, or no file can have the path `folder`. Also if `folder` is None
            with `keep`, with `part` or in a job of several processes.
        DtypeError: If an argument has the wrong type or is traced.
        ShapeError: If the data do not fit the sizes.
        DataError: If a label is not from 0 to outputs − 1, or an input or target is NaN or infinite.
        CheckpointError: If the folder holds other files, damaged settings or a sweep with other settings, or if another
            process already runs a group of this call.
        WriteError: If a file cannot be written.

    Example:
        >>> from jaxgd import load_dataset
        >>> done = sweep(load_dataset("digits"), sizes=(64, 10, 10), eta=[1.0, 3.0], seeds=2, epochs=2, scheme="scaled")
        >>> done.last().select(["eta", "seed", "outcome"]).to_pylist()[0]
        {'eta': 1.0, 'seed': 0, 'outcome': 'COMPLETED'}
    """
    require_count("sweep", "epochs", epochs, most=largest_int())
    require_count("sweep", "keep", keep, least=0)
    require_bool("sweep", "progress", progress)
    require_choice("sweep", "scheme", scheme, ("gaussian", "scaled"))
    require_choice("sweep", "kernel", kernel, kernel_names())
    if memory is not None:
        require_count("sweep", "memory", memory)
    if stop is not None:
        require_callable("sweep", "stop", stop, "It takes no argument.")
    if any(map(is_traced, tree_leaves((data, sizes, eta, seeds)))):
        raise DtypeError("sweep: data, sizes, eta and seeds must have values, got traced ones.\nCall it outside jit.")
    points = require_points(sizes, eta, seeds, epochs, jnp.result_type(float))
    chosen, parts = require_part(part, len(points.sizes) * points.per_sizes)
    shapes = [_outline(s, scheme) for s in points.sizes]
    fitted, counts = [fit_splits("sweep", network, data) for network in shapes][-1]
    if spans_processes(fitted):
        raise RangeError(
            "sweep: data must be whole in each process, got arrays that span several processes.\nPass NumPy arrays."
        )
    if any(len(fitted[name].y) != count for name, count in counts.items()):
        raise RangeError(
            "sweep: data must have no padding, got padded examples.\n"
            "Pass NumPy arrays, because the devices divide the networks and not the examples."
        )
    n = counts["train"]
    if batch_size is not None:
        require_count("sweep", "batch_size", batch_size, most=n)
    for name, given in (("keep", keep), ("part", parts - 1), ("a job of several processes", process_count() - 1)):
        if given and folder is None:
            raise RangeError(f"sweep: {name} needs a folder, got none.\nPass folder=….")
    jobs = [Job(network, fitted["train"], quadratic_cost, None, batch_size) for network in shapes]
    choices = [select_backend(kernel, job) for job in jobs]
    settings = {
        "data": _digest(fitted),
        "sizes": [list(s) for s in points.sizes],
        "eta": list(points.eta),
        "seeds": len(points.seeds) if points.seeds == tuple(range(len(points.seeds))) else list(points.seeds),
        **{"epochs": int(epochs), "batch_size": None if batch_size is None else int(batch_size)},
        **{"scheme": scheme, "kernel": kernel, "keep": int(keep)},
    }
    path = None if folder is None else as_path("sweep", folder)
    store = None if path is None else SweepFolder.find(path)
    if store is None:
        limit = _memory() if memory is None else int(memory)
        itemsize = jnp.result_type(float).itemsize
        needs = [
            bytes_per_network(s, n, batch_size or n, itemsize, choice.name)
            for s, choice in zip(points.sizes, choices, strict=True)
        ]
        config: dict[str, Any] = {
            **{"settings": settings, "memory": limit, "parts": parts, "budget": budget_of(fitted["train"].x)._asdict()},
            "groups": group_counts(points, needs, limit, parts),
            "kernels": [[choice.name, choice.reason] for choice in choices],
            "made_with": made_with(),
        }
        store = None if path is None else SweepFolder.create(path, config)
    if store is not None:
        config = store.config
        _require_same_sweep(
            store,
            {
                **settings,
                **({} if memory is None else {"memory": int(memory)}),
                **({} if part is None else {"parts": parts}),
            },
        )
        # A saved sweep continues with the backends that its first call chose.
        choices = [
            choice if choice.name == name else select_backend(name, job)
            for choice, (name, _), job in zip(choices, config["kernels"], jobs, strict=True)
        ]
    kernels = {name_of(s): choice for s, choice in zip(points.sizes, choices, strict=True)}
    groups = groups_of(points, config["groups"])
    if part is not None:
        groups = [group for group in groups if group.number % parts == chosen - 1]
    whole = parts == 1
    if store is not None and whole and (table := store.table()) is not None:
        return _completed(store, table, kernels, whole=True)

    def train(group: Group, progress: Progress | None, after_epoch: AfterEpoch) -> Progress:
        examples = {name: backend.prepare(kernels[name_of(group.sizes)], x) for name, x in fitted.items()}
        splits = Splits(examples["train"], examples.get("validation"), examples.get("test"))
        objective = xla.Objective(quadratic_cost, None, Budget(**config["budget"]))
        static = StaticConfig(batch_size, None, objective, True, False, kernels[name_of(group.sizes)])
        return advance(group, progress or begin(group, scheme, epochs), splits, static, after_epoch)

    tables, stopped = run_groups(groups, train, store, epochs, keep, progress=progress, stop=stop)
    if store is None or stopped:
        return Sweep(joined(tables, jnp.result_type(float)), (), path, kernels, complete=not stopped)
    return _completed(store, _joined(store, groups), kernels, whole=whole)


def merge_sweep(folder: str | Path) -> Sweep:
    """Join the parts of a sweep in one folder.

    Args:
        folder: The folder in which `sweep` ran all parts.

    Returns:
        The complete sweep, as a call without parts returns it. Its table is also in the folder, as `table.parquet`.

    Raises:
        CheckpointError: If the folder holds no sweep, the table of a group is damaged, or parts are missing. The
            message names the missing parts.
        DtypeError: If `folder` is not a str or a Path.
        RangeError: If no file can have this path.
        WriteError: If a file cannot be written.

    Example:
        >>> import tempfile, numpy as np, jaxgd
        >>> data, path = (np.eye(4, dtype=np.float32), np.arange(4)), tempfile.mkdtemp()
        >>> settings = {"sizes": (4, 3, 4), "eta": [0.1, 1.0], "seeds": 2, "epochs": 3, "batch_size": 2}
        >>> parts = [jaxgd.sweep(data, folder=path, part=(i, 2), **settings) for i in (1, 2)]
        >>> [part.table.num_rows for part in parts], merge_sweep(path).table.num_rows
        ([8, 8], 16)
    """
    store = SweepFolder.open("merge_sweep", as_path("merge_sweep", folder))
    settings: dict[str, Any] = store.config["settings"]
    parts: int = store.config["parts"]
    seeds: int | list[int] = settings["seeds"]
    points = Points(
        tuple(map(tuple, settings["sizes"])),
        tuple(settings["eta"]),
        tuple(range(seeds) if isinstance(seeds, int) else seeds),
    )
    groups = groups_of(points, store.config["groups"])
    missing = [group.number for group in groups if not store.is_done(group)]
    if missing:
        named = ", ".join(dict.fromkeys(f"{number % parts + 1}/{parts}" for number in missing))
        raise CheckpointError(
            f"merge_sweep: {store.path} must have {len(groups)} tables of groups, got {len(groups) - len(missing)}.\n"
            f"First run {f'the missing parts: {named}' if parts > 1 else 'the sweep to its end'}."
        )
    kernels = (BackendChoice(*choice) for choice in store.config["kernels"])
    table = store.table()
    table = _joined(store, groups) if table is None else table
    return _completed(store, table, dict(zip(map(name_of, points.sizes), kernels, strict=True)), whole=True)


def _joined(store: SweepFolder, groups: list[Group]) -> Any:
    """Join the tables of the groups. Raise CheckpointError if the table of a group is damaged."""
    tables = [store.table_of(group) for group in groups]
    if damaged := [group.number for group, table in zip(groups, tables, strict=True) if table is None]:
        raise CheckpointError(
            f"sweep: the tables of all groups in {store.path} must be intact, got damaged groups {damaged}.\n"
            "Run the sweep again, which repeats these groups."
        )
    return joined(tables, store.config["made_with"]["float"])


def _completed(store: SweepFolder, table: Any, kernels: dict[str, BackendChoice], *, whole: bool) -> Sweep:
    """Return the result of a sweep whose groups all have a table. For a whole sweep, process 0 completes the folder."""
    sweep = Sweep(table, (), store.path, kernels, complete=whole)
    kept = [store.network(*point) for point in best(sweep.last(), store.config["settings"]["keep"])]
    missing = [path.name for path in kept if not path.exists()]
    # Do not warn for one part: merge_sweep keeps only the best networks of all parts, and may have removed some.
    if missing and whole:
        warnings.warn(
            f"sweep: the kept networks must be in {store.path}, but {', '.join(missing)} is missing.\n"
            "Train each missing network alone, with its seed.",
            stacklevel=3,
        )
    kept = [path for path in kept if path.exists()]
    if whole and jax.process_index() == 0:
        store.complete(table, kept)
    return dataclasses.replace(sweep, networks=tuple(kept))


def _require_same_sweep(store: SweepFolder, settings: dict[str, Any]) -> None:
    """Raise CheckpointError for other settings or another dtype. Warn of another version, device or setting of JAX."""
    before: dict[str, str] = store.config["made_with"]
    now = made_with()
    if before["float"] != now["float"]:
        raise CheckpointError(
            f"sweep: {store.path} must be continued in {before['float']}, got {now['float']}.\n"
            f"Set JAX_ENABLE_X64={int(before['float'] == 'float64')}."
        )
    recorded = {**store.config, **store.config["settings"]}
    for name, value in settings.items():
        if value != recorded[name]:
            was, got = shown(recorded[name], str), shown(value, str)
            raise CheckpointError(
                f"sweep: {store.path} must be continued with the same settings: its {name} was {was}, got {got}.\n"
                "Pass the same value, or name another folder."
            )
    names = {**before, **now}
    if changes := [f"{x} was {before.get(x)}, now {now.get(x)}" for x in names if before.get(x) != now.get(x)]:
        warnings.warn(f"sweep: results may differ from an uninterrupted sweep: {'; '.join(changes)}.", stacklevel=3)


def _outline(sizes: tuple[int, ...], scheme: str) -> Network:
    """Return a network whose arrays have only shapes and dtypes."""
    return eval_shape(lambda: init_network(jax.random.key(0), sizes, scheme))


def _digest(fitted: dict[str, Examples]) -> str:
    """Return the SHA-256 of all examples, to identify the data."""
    sha = hashlib.sha256()
    for name, examples in fitted.items():
        for x in map(np.asarray, examples):
            sha.update(f"{name} {x.dtype} {x.shape} ".encode())
            sha.update(np.ascontiguousarray(x).data)
    return sha.hexdigest()


def _memory() -> int:
    """Return a quarter of the free memory in bytes of the accelerators, or of the machine."""
    devices: list[jax.Device] = jax.local_devices()
    stats: list[dict[str, int]] = [device.memory_stats() or {} for device in devices if device.platform != "cpu"]
    if stats and all("bytes_limit" in each for each in stats):
        return int(sum(each["bytes_limit"] - each.get("bytes_in_use", 0) for each in stats) // 4)
    return (free_memory() or _UNKNOWN) // 4

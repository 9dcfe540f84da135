"""Run the groups of a sweep one after the other, show the progress and save the states."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxgd.mesh.processes import process_count
from jaxgd.outcome import Reason
from jaxgd.sweeps.folder import SweepFolder
from jaxgd.sweeps.group import AfterEpoch, Progress, networks_of
from jaxgd.sweeps.plan import Group
from jaxgd.sweeps.table import Sweep, best, rows

# Shortest time in seconds between two saves of a running group. A stopped group is saved without a wait.
_SECONDS = 2.0
# Seconds between two checks for the tables of other processes.
_POLL = 0.2

Train = Callable[[Group, Progress | None, AfterEpoch], Progress]
"""A function train(group, state, after_epoch) that trains a group from its saved state, or from the start for None.
It calls `after_epoch` as `group.advance` does."""


def run_groups(
    groups: list[Group],
    train: Train,
    store: SweepFolder | None,
    epochs: int,
    keep: int,
    *,
    progress: bool,
    stop: Callable[[], bool] | None,
) -> tuple[list[Any], bool]:
    """Run the groups of this process that have no table, and wait for the other processes of the job.

    Return the tables of this process, and True if `stop` ended the run.
    """
    from tqdm import tqdm

    mine = groups[jax.process_index() :: process_count()]
    # The first group stays locked to the end, so a second start of the same sweep fails at once.
    with _locked(store, mine[:1]):
        known = {group.number: store.table_of(group) if store else None for group in mine}
        due = [group for group in mine if known[group.number] is None]
        for group in due[1:]:
            with _locked(store, [group]):
                pass
        total, left = (epochs * sum(len(group.seeds) for group in some) for some in (mine, due))
        stopped = False
        # disable=None hides the bar if stderr is not a terminal.
        with tqdm(total=total, initial=total - left, unit="epoch", disable=None if progress else True) as bar:
            for group in due:
                with _locked(store, [group] if group is not mine[0] else []):
                    known[group.number], stopped = _run(group, train, store, epochs, keep, bar, stop)
                if stopped:
                    break
        while store and not stopped and not all(map(store.is_done, groups)):  # other processes still run groups
            time.sleep(_POLL)
            stopped = stop is not None and bool(stop())
    return [table for table in known.values() if table is not None], stopped


def _locked(store: SweepFolder | None, groups: list[Group]) -> contextlib.AbstractContextManager[None]:
    """Lock the first group of the list. Without a folder or a group, lock nothing."""
    return store.locked(groups[0]) if store and groups else contextlib.nullcontext()


def _run(
    group: Group,
    train: Train,
    store: SweepFolder | None,
    epochs: int,
    keep: int,
    bar: Any,
    stop: Callable[[], bool] | None,
) -> tuple[Any | None, bool]:
    """Run a group. Return its table, or None if it did not start, and True if `stop` ended it."""
    if stop is not None and stop():
        return None, True
    first: int = bar.n
    saved, stopped = time.monotonic(), False

    def after_epoch(done: int, now: Callable[[], Progress]) -> bool:
        nonlocal saved, stopped
        bar.update(first + done - bar.n)
        stopped = done < epochs * len(group.seeds) and stop is not None and bool(stop())
        if store and (stopped or time.monotonic() - saved >= _SECONDS):
            store.save(group, now())
            saved = time.monotonic()
        return stopped

    end = train(group, store.restore(group, epochs) if store else None, after_epoch)
    if stopped:
        return rows(group, end._replace(codes=np.where(end.ended, end.codes, int(Reason.STOPPED)))), True
    table = rows(group, end)
    if store:
        kept = best(Sweep(table, (), None, {}, False).last(), keep)
        points = list(zip(group.eta, group.seeds, strict=True))
        networks = networks_of(group, end, [points.index(point[1:]) for point in kept])
        for point, network in zip(kept, networks, strict=True):
            store.save_network(point, network)
        store.finish(group, table)
    return table, False

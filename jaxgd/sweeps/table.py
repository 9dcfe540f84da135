"""The table of a sweep, and its form as a Parquet file."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgd.files import read_file, write_atomically
from jaxgd.kernels import BackendChoice
from jaxgd.outcome import Reason
from jaxgd.sweeps.group import COLUMNS, Progress
from jaxgd.sweeps.plan import Group, name_of

# Largest size of a Parquet file in bytes. Larger tables do not fit into memory.
_MOST = 2**40
_DIGEST = b"jaxgd.sweep sha256"


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """The result of `sweep`.

    Attributes:
        table: A `pyarrow.Table` with one row per network and epoch, in the order of sizes, eta, seed and epoch. Its
            columns are sizes, eta, seed, epoch, cost, accuracy, validation_cost, validation_accuracy, test_cost,
            test_accuracy, step_norm and outcome. The sizes are text, such as "784-30-10". The outcome is the name of
            the `Reason` of the network, the same in all of its rows. STOPPED means that `stop` ended its training.
        networks: The paths of the networks that `keep` has saved, grouped by sizes, the best of each size first.
        folder: The folder of the sweep. None if nothing was written.
        kernel: The backend that ran the epochs, and the reason for it, by sizes.
        complete: True if the table holds every network of the sweep.

    Example:
        >>> import numpy as np, jaxgd
        >>> x, y = np.eye(4, dtype=np.float32), np.arange(4)
        >>> done = jaxgd.sweep((x, y), sizes=(4, 3, 4), eta=[0.1, 1.0], seeds=2, epochs=3, batch_size=2)
        >>> done.table.num_rows, done.last().column("seed").to_pylist()
        (16, [0, 1, 0, 1])
    """

    table: Any = dataclasses.field(repr=False)
    networks: tuple[Path, ...]
    folder: Path | None
    kernel: dict[str, BackendChoice]
    complete: bool

    def last(self) -> Any:
        """Return the last row of each network as a `pyarrow.Table`."""
        following: np.ndarray = self.table.column("epoch").to_numpy()[1:]
        return self.table.filter(np.append(following == 0, [True] * min(self.table.num_rows, 1)).astype(bool))


def rows(group: Group, progress: Progress) -> Any:
    """Return the table of a group."""
    import pyarrow as pa

    epochs = np.arange(len(progress.values), dtype=np.int32)
    network, epoch = np.nonzero((epochs <= progress.last[:, None]) & (progress.epoch >= 0))
    values = progress.values[epoch, :, network]
    names = np.array([Reason(int(code)).name for code in progress.codes], dtype=object)
    columns = {
        "sizes": [name_of(group.sizes)] * len(epoch),
        "eta": np.array(group.eta)[network],
        "seed": np.array(group.seeds)[network],
        "epoch": epochs[epoch],
        **{name: values[:, i] for i, name in enumerate(COLUMNS)},
        "outcome": names[network],
    }
    return pa.table(columns, schema=_schema(values.dtype))


def _schema(dtype: Any) -> Any:
    import pyarrow as pa

    first = {"sizes": pa.string(), "eta": pa.float64(), "seed": pa.int64(), "epoch": pa.int32()}
    return pa.schema({**first, **dict.fromkeys(COLUMNS, pa.from_numpy_dtype(dtype)), "outcome": pa.string()})


def joined(tables: Sequence[Any], dtype: Any) -> Any:
    """Return the tables of several groups as one, with values of the given dtype."""
    import pyarrow as pa

    return pa.concat_tables([_schema(dtype).empty_table(), *tables]).combine_chunks()


def _digest(table: Any, sweep: str) -> bytes:
    """Return one SHA-256 of the values of a table and of the id of its sweep."""
    import pyarrow as pa

    sha = hashlib.sha256(sweep.encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        sha.update(f"{name} {column.type} {len(column)} {column.null_count} ".encode())
        column = column.combine_chunks()
        if pa.types.is_string(column.type):
            column = column.dictionary_encode()
            sha.update(repr(column.dictionary.to_pylist()).encode())
            column = column.indices
        sha.update(column.to_numpy(zero_copy_only=False).tobytes())
    return sha.hexdigest().encode()


def write_table(path: Path, table: Any, sweep: str) -> None:
    """Write a table, with the digest of its values and of its sweep, as a Parquet file."""
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_DIGEST: _digest(table, sweep)}), content, compression="zstd")
    write_atomically(path, content.getvalue())


def read_table(path: Path, sweep: str) -> Any | None:
    """Return the table in a file of `write_table`; None if the file is damaged or belongs to another sweep."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_file(path, _MOST)
    try:
        table = pq.read_table(pa.BufferReader(content))
        known = (table.schema.metadata or {}).get(_DIGEST) == _digest(table, sweep)
    except Exception:  # pyarrow raises several types for damaged files
        return None
    return table.replace_schema_metadata() if known else None


def best(last: Any, keep: int) -> list[tuple[str, float, int]]:
    """Return the sizes, η and seed of the networks to keep, from the last row of each network.

    They are the `keep` best networks of each size with the outcome COMPLETED. The higher accuracy is better; between
    equal accuracies, the lower cost is better. Accuracy and cost come from the first set that exists: validation, test,
    training.
    """
    names: list[str] = last.column_names
    column = {name: np.asarray(last.column(name).to_pylist()) for name in names}
    made = np.flatnonzero(column["outcome"] == Reason.COMPLETED.name)
    split = next((x for x in ("validation_", "test_") if np.isfinite(column[f"{x}cost"][made]).any()), "")
    accuracy, cost = column[f"{split}accuracy"][made], column[f"{split}cost"][made]
    # lexsort puts NaN last, and keeps the order of equal networks.
    ranked = made[np.lexsort((cost, -accuracy))]
    sizes = list(dict.fromkeys(column["sizes"].tolist()))
    kept = [i for each in sizes for i in ranked[column["sizes"][ranked] == each][:keep]]
    return [(str(column["sizes"][i]), float(column["eta"][i]), int(column["seed"][i])) for i in kept]

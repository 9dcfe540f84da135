"""Files of results: one JSON row per line, at most one row for each case, variant, quantity and precision.

A file holds the results of one host in one setting, such as a number of threads. Results of another host or setting
belong in another file (`run --out`), because the key of a row does not contain the host or the setting.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.rows import Key, Row
from jaxgd.files import write_atomically

FOLDER = Path("benchmarks/results")
RESULTS = FOLDER / "results.jsonl"


class ResultsError(Exception):
    """A file that cannot be read, or does not hold valid results."""


def read(path: Path) -> list[Row]:
    """Return the rows of a file. Raise ResultsError if the file cannot be read, or a row is invalid or comes twice."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} cannot be read: {error}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Row.from_json(line))
        except (ValueError, TypeError) as error:
            raise ResultsError(f"{path} is not a file of results: line {number}: {error}") from error
    if len({row.key for row in rows}) < len(rows):
        twice = next(row.key for i, row in enumerate(rows) if row.key in {other.key for other in rows[:i]})
        raise ResultsError(f"{path} is not a file of results: two rows for {', '.join(twice)}.")
    return rows


def read_all(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of several files. For rows with the same key, keep the row whose file comes first in `paths`."""
    rows: dict[Key, Row] = {}
    for path in paths:
        for row in read(path):
            rows.setdefault(row.key, row)
    return list(rows.values())


def replace(path: Path, rows: Sequence[Row]) -> None:
    """Write rows into a file. They replace the file's rows of the same case, variant and precision."""
    new = {(row.case, row.variant, row.precision) for row in rows}
    kept = read(path) if path.exists() else []
    kept = [row for row in kept if (row.case, row.variant, row.precision) not in new]
    lines = sorted((*kept, *rows), key=lambda row: row.case)
    write_atomically(path, "".join(row.to_json() + "\n" for row in lines).encode())

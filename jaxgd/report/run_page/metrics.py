"""Read the metrics that a run has written."""

import itertools
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxgd.files import read_file, unique

_LARGEST = 2**28  # limit on metrics.jsonl, in bytes


def read_metrics(path: Path) -> dict[str, Float[np.ndarray, "epochs ..."]]:
    """Return the columns of a run's metrics.jsonl, with NaN for each value that is null or missing.

    A run that is still training may have written only a part of its last line. An unfinished last line is left out,
    unless it is the only line. A column is left out if its values are not numbers or have different shapes.

    Args:
        path: The file metrics.jsonl of a run folder.

    Returns:
        One array per kept column, with one row per kept line. There is at least one row, and a column "epoch".

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is empty, or a line is not a JSON object or has no epoch.
    """
    *lines, last = read_file(path, _LARGEST).decode("utf-8").split("\n")
    rows = [_row(line, number) for number, line in enumerate(lines, 1)]
    if last:
        try:
            rows.append(_row(last, len(lines) + 1))
        except ValueError:
            if not rows:
                raise
    if not rows:
        raise ValueError("it is empty")
    columns = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        values = [row.get(name) for row in rows]
        shaped = next((value for value in values if value is not None), None)
        missing = [np.nan] * len(shaped) if isinstance(shaped, list) else np.nan
        try:
            columns[name] = np.array([missing if value is None else value for value in values], float)
        except (TypeError, ValueError, OverflowError):
            continue
    return columns


def _row(line: str, number: int) -> dict[str, object]:
    try:
        row = json.loads(line, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is not JSON") from error
    if not isinstance(row, dict) or type(row.get("epoch")) is not int or not 0 <= row["epoch"] < 2**63:
        raise ValueError(f"line {number} has no epoch")
    return row

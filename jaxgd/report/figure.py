"""The writing of a figure into a file."""

import io
from pathlib import Path
from typing import Any

from jaxgd.errors import RangeError
from jaxgd.files import as_path, write_atomically

STILL = (".png", ".svg", ".pdf")


def save_figure(who: str, figure: Any, path: str | Path, dpi: int) -> None:
    """Draw a figure of matplotlib, and write it whole or not at all.

    Args:
        who: Function that complains.
        figure: The figure.
        path: Path of the file, which ends in .png, .svg or .pdf.
        dpi: Pixels per inch of a PNG file.

    Raises:
        RangeError: If the path has another ending.
        WriteError: If the file cannot be written.
    """
    path = as_path(who, path)
    if path.suffix.lower() not in STILL:
        raise RangeError(f"{who}: path must end in {', '.join(STILL)}, got {path.name!r}.\nName it {path.stem}.png.")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=dpi)
    write_atomically(path, content.getvalue())

"""`jaxgd predict`: read the digit in each image."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from jaxgd.cli.common import DONE, FAILED, RunDir
from jaxgd.cli.output import error_line, one_line

if TYPE_CHECKING:
    import numpy as np

    from jaxgd.data.image import Frame


@dataclasses.dataclass(frozen=True)
class Predict:
    """Read the digit in each image.

    Prints one line per image with tab-separated fields: the file, the digit and the network's output activations. An
    image may have any size: it is scaled and centered like the training images. A picture with dark ink on light paper
    is inverted.

    Exit status: 0 all images were read; 1 an image could not be read (standard error states the reason); 2
    misuse.
    """

    run_dir: RunDir
    """Run folder, made by jaxgd train."""
    images: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(required)"),
    ]
    """Image files: PNG, another format that Pillow reads, or IDX, where 0 is paper and 255 is ink."""

    def run(self, argv: list[str]) -> int:
        """Predict and return the exit status."""
        import numpy as np

        from jaxgd.chunks import outputs_in_chunks
        from jaxgd.data.image import Frame
        from jaxgd.errors import DataError, RangeError
        from jaxgd.examples import require_fit
        from jaxgd.run_folder import RunFolder

        if not self.images:
            raise RangeError("expected at least one image, got none.\nName the file of a picture.")
        folder = RunFolder.open(self.run_dir)
        network, frame = folder.load_network(), Frame(**folder.config["frame"])
        readings: list[_Reading] = []
        status = DONE
        for path in self.images:
            try:
                images = _read(path, frame)
            except (DataError, OSError) as error:
                error_line("jaxgd predict", str(error))
                status = FAILED
                continue
            for name, digits in images:
                if isinstance(digits, DataError):
                    error_line("jaxgd predict", f"{name}: {digits}")
                    status = FAILED
                else:
                    readings += digits
        if not readings:
            return status
        x, _ = require_fit(
            "predict", "image", network, np.stack([r.framed for r in readings]), np.zeros(len(readings), int)
        )
        for r, a in zip(readings, np.asarray(outputs_in_chunks(network, x)), strict=True):
            print(one_line(r.name), a.argmax(), *(f"{activation:.4f}" for activation in a), sep="\t")
        return status


class _Reading(NamedTuple):
    name: str
    framed: "np.ndarray"
    digit: "Digit"


def _read(path, frame):
    from jaxgd.data.image import read_picture, find_digits, fit_to_frame
    p=read_picture(path)
    if p.ink.shape==(frame.height,frame.width):
        return [(str(path),[_Reading(str(path),p.ink,None)])]
    return [(str(path),[_Reading(str(path),fit_to_frame(d.image,frame),d) for d in find_digits(p)])]

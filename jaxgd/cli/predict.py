"""`jaxgd predict`: read the digit in each image."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxgd.cli.common import DONE, FAILED, RunDir
from jaxgd.cli.output import error_line

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
    """Image files: PNG, another format that Pillow reads, or IDX."""

    def run(self, argv: list[str]) -> int:
        """Predict and return the exit status."""
        import numpy as np

        from jaxgd.data.image import Frame
        from jaxgd.errors import DataError, RangeError
        from jaxgd.examples import outputs_in_chunks, require_fit
        from jaxgd.run_folder import RunFolder

        if not self.images:
            raise RangeError("expected at least one image, got none.\nName the file of a picture.")
        folder = RunFolder.open(self.run_dir)
        network, frame = folder.load_network(), Frame(**folder.config["frame"])
        named: list[tuple[str, np.ndarray]] = []
        status = DONE
        for path in self.images:
            try:
                named += _read(path, frame)
            except (DataError, OSError) as error:
                error_line("jaxgd predict", str(error))
                status = FAILED
        if not named:
            return status
        x, _ = require_fit(
            "predict", "image", network, np.stack([image for _, image in named]), np.zeros(len(named), int)
        )
        for (name, _), a in zip(named, np.asarray(outputs_in_chunks(network, x)), strict=True):
            print(name, a.argmax(), *(f"{activation:.4f}" for activation in a), sep="\t")
        return status


def _read(path: Path, frame: "Frame") -> list[tuple[str, "np.ndarray"]]:
    """Return the name and the pixels of each image in a file, fitted to the frame of the training images."""
    from jaxgd.data.idx import is_idx, read_idx
    from jaxgd.data.image import fit_to_frame, read_picture
    from jaxgd.errors import DataError

    if not is_idx(path):
        return [(str(path), fit_to_frame(read_picture(path), frame))]
    images = read_idx(path)
    if images.ndim not in (2, 3) or images.size == 0:
        raise DataError(f"{path}: expected images (n, height, width) or one (height, width), got {images.shape}.")
    size = (frame.height, frame.width)
    return [
        (f"{path}[{i}]", image if image.shape == size else fit_to_frame(image, frame))
        for i, image in enumerate(images if images.ndim == 3 else images[None])
    ]

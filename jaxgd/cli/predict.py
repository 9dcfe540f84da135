"""`jaxgd predict`: read the digit in each image."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    """Image files: PNG, another format that Pillow reads, or IDX, where 0 is paper and 255 is ink. An IDX file has the
    orientation of the run's files: it is transposed if the run was trained with --transpose."""

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
        named: list[tuple[str, np.ndarray]] = []
        status = DONE
        for path in self.images:
            try:
                images = _read(path, folder.config.get("transpose", False))
            except (DataError, OSError) as error:
                error_line("jaxgd predict", str(error))
                status = FAILED
                continue
            for name, image in images:
                try:
                    named.append((name, _fitted(image, frame)))
                except DataError as error:
                    error_line("jaxgd predict", f"{name}: {error}")
                    status = FAILED
        if not named:
            return status
        x, _ = require_fit(
            "predict", "image", network, np.stack([image for _, image in named]), np.zeros(len(named), int)
        )
        for (name, _), a in zip(named, np.asarray(outputs_in_chunks(network, x)), strict=True):
            label = a.argmax() + folder.config.get("labels_from", 0)
            print(one_line(name), label, *(f"{activation:.4f}" for activation in a), sep="\t")
        return status


def _read(path: Path, transpose: bool) -> list[tuple[str, "np.ndarray"]]:
    """Return the name and the pixels of each image in a file. Transpose those of an IDX file if asked."""
    import numpy as np

    from jaxgd.data.idx import is_idx, read_idx
    from jaxgd.data.image import read_picture
    from jaxgd.errors import DataError

    if not is_idx(path):
        return [(str(path), read_picture(path))]
    images = read_idx(path)
    if images.ndim not in (2, 3) or images.size == 0:
        raise DataError(f"{path}: expected images (n, height, width) or one (height, width), got {images.shape}.")
    images = np.ascontiguousarray(images.swapaxes(-1, -2)) if transpose else images
    return [(f"{path}[{i}]", image) for i, image in enumerate(images if images.ndim == 3 else images[None])]


def _fitted(image: "np.ndarray", frame: "Frame") -> "np.ndarray":
    """Return the image in the frame of the training images. One of their size stays as it is, unless it is blank."""
    from jaxgd.data.image import fit_to_frame

    fits = image.shape == (frame.height, frame.width) and image.min() < image.max()
    return image if fits else fit_to_frame(image, frame)

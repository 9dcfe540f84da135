"""`jaxgd predict`: read the digit in an image."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    import numpy as np

    from jaxgd.data.image import Frame


@dataclasses.dataclass(frozen=True)
class Predict:
    """Read digits: one line an image, with the image, its digit and the network's activations, separated by tabs.

    An image of any size is centered and scaled as the images were that the network learned from. Files are PNG (or
    another format that Pillow reads) or IDX; dark ink on light paper is turned into light on dark.
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files."""

    def run(self, argv: list[str]) -> int:
        """Predict; the result is the exit status."""
        import numpy as np

        from jaxgd.data.image import Frame
        from jaxgd.errors import RangeError
        from jaxgd.examples import outputs_in_chunks, require_fit
        from jaxgd.run_folder import RunFolder

        if not self.images:
            raise RangeError("name at least one image.")
        folder = RunFolder.open(self.run_dir)
        network, frame = folder.load_network(), Frame(**folder.config["frame"])
        named = [pair for path in self.images for pair in _read(path, frame)]
        x, _ = require_fit(
            "predict", "image", network, np.stack([image for _, image in named]), np.zeros(len(named), int)
        )
        for (name, _), a in zip(named, np.asarray(outputs_in_chunks(network, x)), strict=True):
            print(name, a.argmax(), *(f"{activation:.4f}" for activation in a), sep="\t")
        return 0


def _read(path: Path, frame: "Frame") -> Iterator[tuple[str, "np.ndarray"]]:
    """The images of a file with a name each, in the form the network learned from."""
    from jaxgd.data.idx import read_idx
    from jaxgd.data.image import fit_to_frame, read_picture
    from jaxgd.errors import DataError

    if "idx" not in path.name and "ubyte" not in path.name:
        yield str(path), fit_to_frame(read_picture(path), frame)
        return
    images = read_idx(path)
    if images.ndim not in (2, 3) or images.size == 0:
        raise DataError(f"{path}: expected images (n, height, width) or one (height, width), got {images.shape}.")
    for i, image in enumerate(images if images.ndim == 3 else images[None]):
        fits = image.shape == (frame.height, frame.width)
        yield f"{path}[{i}]", image if fits else fit_to_frame(image, frame)

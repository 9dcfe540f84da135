"""`jaxgd predict`: read the digits in each image."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxgd.cli.common import DONE, FAILED, MaybePath, RunDir, require_writable_figure
from jaxgd.cli.output import error_line, one_line, say, without_function

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jaxgd.data.image import Digit, Frame, Picture

# An answer is doubtful if the largest activation is below _LOW, or exceeds the second largest by less than _CLOSE.
# These limits make 1.5% of the answers doubtful for the clean photographs of the benchmark `photographs` with seed 1.
_LOW, _CLOSE = 0.4, 0.2
_MOST_ROWS = 20  # largest number of digits in a figure


@dataclasses.dataclass(frozen=True)
class Reading:
    """An image for the network, and the place where the image comes from.

    Attributes:
        name: The path of the file. An image of an IDX file adds its index. One of several digits in a picture adds its
            rows and columns.
        framed: The image that the network reads, in the size of the training images.
        picture: The picture in the file; None for an IDX file.
        digit: The digit found in the picture; None if the whole image counts as one digit.
        several: The number of digits in the picture.
    """

    name: str
    framed: "NDArray[np.uint8]"
    picture: "Picture | None" = None
    digit: "Digit | None" = None
    several: int = 1


@dataclasses.dataclass(frozen=True)
class Predict:
    """Read the digits in each image.

    Prints one line per digit with tab-separated fields: the file, the digit and the network's output activations. The
    digits of a picture are listed from left to right. If a picture has several digits, the rows and columns of each
    digit follow the file's name, as in two.png[40:210,35:160]. A picture may have up to 50 million pixels, dark or
    light ink, uneven light, and lines along its edges. Each digit is scaled and centered like the training images.

    Warns on standard error if the answer for a picture is doubtful. The reasons are ink at the edge, ink in separate
    parts, several digits, a low activation, two close activations, or an activation that is NaN.

    Exit status: 0 all images were read, even with doubts; 1 an image could not be read or the figure could not be
    written (standard error states the reason); 2 misuse.
    """

    run_dir: RunDir
    """Run folder, made by jaxgd train."""
    images: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(required)"),
    ]
    """Image files: PNG, another format that Pillow reads, or IDX with 0 for the background and 255 for ink.
    The command transposes the images of IDX files if the run was trained with --transpose."""
    single: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Expect one digit per picture. A picture with several digits is an error."""
    show: MaybePath = None
    """PNG, SVG or PDF file for a figure of the pictures, the images that the network saw, and its activations."""

    def run(self, argv: list[str]) -> int:
        """Predict and return the exit status."""
        import numpy as np

        from jaxgd.chunks import outputs_in_chunks
        from jaxgd.data.image import Frame
        from jaxgd.errors import DataError, RangeError
        from jaxgd.examples import require_fit
        from jaxgd.report.figure import STILL, require_library
        from jaxgd.run_folder import RunFolder

        if not self.images:
            raise RangeError("expected at least one image, got none.\nName the file of a picture.")
        if self.show is not None:
            require_writable_figure(self.show, STILL, "--show")
            require_library("--show", "matplotlib")
        folder = RunFolder.open(self.run_dir)
        network, frame = folder.load_network(), Frame(**folder.config["frame"])
        transpose, first = folder.config.get("transpose", False), folder.config.get("labels_from", 0)
        readings: list[Reading] = []
        status = DONE
        for path in self.images:
            try:
                results = _read(path, frame, transpose=transpose, single=self.single)
            except (DataError, OSError) as error:
                results = [error]
            for reading in results:
                if isinstance(reading, Reading):
                    readings.append(reading)
                else:
                    error_line("jaxgd predict", str(reading))
                    status = FAILED
        if not readings:
            return status
        images = np.stack([reading.framed for reading in readings])
        x, _ = require_fit("predict", "image", network, images, np.zeros(len(readings), int))
        outputs = np.asarray(outputs_in_chunks(network, x))
        for i, reading in enumerate(readings):
            a: NDArray[np.floating] = outputs[i]
            # As in `jaxgd evaluate`, outputs with a NaN give no answer.
            answer = "none" if np.isnan(a).any() else int(a.argmax()) + first
            print(one_line(reading.name), answer, *(f"{activation:.4f}" for activation in a.tolist()), sep="\t")
            if doubts := doubts_of(reading, a, first):
                error_line("jaxgd predict", f"warning: {reading.name}: {'; '.join(doubts)}")
        if self.show is not None:
            from jaxgd.report.readings import plot_readings

            rows = [(r.name, r.picture, r.digit, r.framed) for r in readings[:_MOST_ROWS]]
            plot_readings(rows, outputs, self.show, labels_from=first)
            if len(readings) > _MOST_ROWS:
                say(f"{self.show} shows the first {_MOST_ROWS} of {len(readings)} digits")
        return status


def doubts_of(reading: Reading, a: "NDArray[np.floating]", first: int = 0) -> list[str]:
    """Return the reasons to doubt the answer for a picture. `first` is the label of output 0.

    For an image of an IDX file, which has no picture, return no reasons.
    """
    if reading.picture is None:
        return []
    doubts = []
    if reading.several > 1:
        doubts.append(f"one of {reading.several} digits in the picture")
    if reading.digit is not None and reading.digit.touches:
        doubts.append("its ink touches the edge of the picture, so a part may be missing")
    if reading.digit is not None and reading.digit.parts > 1:
        doubts.append(f"its ink has {reading.digit.parts} separate parts, which may be digits of their own")
    if (a != a).any():
        return [*doubts, "an activation is NaN, so the network has no answer"]
    best, *others = (-a).argsort().tolist()
    activations: list[float] = a.tolist()
    if activations[best] < _LOW:
        doubts.append(f"the largest activation is {activations[best]:.2f}, which is low")
    if others and activations[best] - activations[others[0]] < _CLOSE:
        second = others[0]
        doubts.append(
            f"{best + first} with {activations[best]:.2f} is close to {second + first} with {activations[second]:.2f}"
        )
    return doubts


def _read(path: Path, frame: "Frame", *, transpose: bool, single: bool) -> "list[Reading | Exception]":
    """Return a reading of each image in a file, but an error for a blank image of an IDX file.

    With `transpose`, transpose the images of an IDX file. With `single`, refuse a picture of several digits.
    """
    import numpy as np

    from jaxgd.data.idx import is_idx, read_idx
    from jaxgd.data.image import find_digits, fit_to_frame, read_picture
    from jaxgd.errors import DataError

    if is_idx(path):
        images = read_idx(path)
        if images.ndim not in (2, 3) or images.size == 0:
            raise DataError(
                f"{path}: expected images (n, height, width) or one image (height, width), got {images.shape}."
            )
        images = np.ascontiguousarray(images.swapaxes(-1, -2)) if transpose else images
        whole = images if images.ndim == 3 else images[None]
        return [_of_image(f"{path}[{i}]", image, frame) for i, image in enumerate(whole)]
    picture = read_picture(path)
    if picture.even and picture.ink.shape == (frame.height, frame.width):
        return [Reading(str(path), picture.ink, picture)]
    try:
        digits = find_digits(picture)
    except DataError as error:
        raise DataError(f"{path}: {without_function(str(error))}") from error
    if single and len(digits) > 1:
        raise DataError(f"{path}: expected one digit because of --single, got {len(digits)}.\nCut out one digit.")
    return [
        Reading(
            str(path) if len(digits) == 1 else f"{path}[{digit.box[0]}:{digit.box[2]},{digit.box[1]}:{digit.box[3]}]",
            fit_to_frame(digit.image, frame),
            picture,
            digit,
            len(digits),
        )
        for digit in digits
    ]


def _of_image(name: str, image: "NDArray[np.uint8]", frame: "Frame") -> "Reading | Exception":
    """Scale and center an image unless it has the size of the training images. Return an error if it is blank."""
    from jaxgd.data.image import fit_to_frame
    from jaxgd.errors import DataError

    fits = image.shape == (frame.height, frame.width) and image.min() < image.max()
    try:
        return Reading(name, image if fits else fit_to_frame(image, frame))
    except DataError as error:
        return DataError(f"{name}: {without_function(str(error))}")

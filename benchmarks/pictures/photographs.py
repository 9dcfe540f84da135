"""Generated photographs of MNIST's test digits: ink on paper, light and shadows, the surroundings, and a camera.

The images of the digits, the kind, a seed and an index determine a photograph. Each pixel has a reflectance between
0 (black) and 1 (white), which is multiplied by the light. Lengths are in pixels unless another unit is named.
"""

import io
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.float64]
Random = np.random.Generator


class Photograph(NamedTuple):
    """A photograph.

    Attributes:
        content: The content of a JPEG file.
        labels: The digits from left to right.
    """

    content: bytes
    labels: tuple[int, ...]


class Scene(NamedTuple):
    """A sheet with digits before the light falls on it.

    Attributes:
        ink: Share of ink per pixel, from 0 to 1.
        paper: Reflectance of the paper.
        stroke: Reflectance of the ink.
    """

    ink: Floats
    paper: float
    stroke: float

    @property
    def reflectance(self) -> Floats:
        """The reflectance of each pixel."""
        return self.paper + (self.stroke - self.paper) * self.ink


def photograph(kind: str, images: NDArray[np.uint8], labels: NDArray[np.integer], seed: int, index: int) -> Photograph:
    """Return the photograph of a kind with this seed and index. Its digits are chosen at random from these images."""
    # `random` does not depend on the kind, so all kinds have the same first digit and size of the sheet. `own`
    # depends on the kind.
    random = np.random.default_rng((seed, index))
    own = np.random.default_rng((seed, index, zlib.crc32(kind.encode())))
    chosen = random.choice(len(images), size=2, replace=False)[: 2 if kind == "two digits" else 1]
    height = int(random.integers(200, 601))
    width = int(height * random.uniform(0.8, 1.4))
    scene = Scene(np.zeros((height, width)), random.uniform(0.7, 0.98), random.uniform(0.05, 0.3))
    scene = scene._replace(ink=_SHEETS.get(kind, _one)(images[chosen], (height, width), random, own))
    picture = _KINDS[kind](scene, own)
    return Photograph(_camera(picture, random, own, kind), tuple(labels[chosen].tolist()))


def _one(images: NDArray[np.uint8], shape: tuple[int, int], random: Random, own: Random) -> Floats:
    """Return the ink of one digit at a random place, with margins of about a tenth of its size or more."""
    return _placed(images[0], shape, random.uniform(0.35, 0.75) * min(shape), random)


def _tiny(images: NDArray[np.uint8], shape: tuple[int, int], random: Random, own: Random) -> Floats:
    return _placed(images[0], shape, own.uniform(26, 50), random)


def _thick(images: NDArray[np.uint8], shape: tuple[int, int], random: Random, own: Random) -> Floats:
    return _placed(images[0], shape, random.uniform(0.35, 0.75) * min(shape), random, grow=own.uniform(0.025, 0.05))


def _thin(images: NDArray[np.uint8], shape: tuple[int, int], random: Random, own: Random) -> Floats:
    return _placed(images[0], shape, random.uniform(0.35, 0.75) * min(shape), random, grow=-own.uniform(0.015, 0.03))


def _two(images: NDArray[np.uint8], shape: tuple[int, int], random: Random, own: Random) -> Floats:
    """Return the ink of two digits of similar size on one line, with a gap of about 0.15 to 0.6 of their size."""
    size = random.uniform(0.3, 0.5) * min(shape)
    inks = [_digit(image, size * own.uniform(0.9, 1.1), 0.0) for image in images]
    gap = int(size * own.uniform(0.15, 0.6))
    rise = own.uniform(-0.08, 0.08) * size
    height = max(ink.shape[0] for ink in inks) + int(abs(rise)) + 1
    row = np.zeros((height, inks[0].shape[1] + gap + inks[1].shape[1]))
    left = 0
    for ink, down in zip(inks, (max(rise, 0), max(-rise, 0)), strict=True):
        row[int(down) : int(down) + ink.shape[0], left : left + ink.shape[1]] = ink
        left += ink.shape[1] + gap
    return _at(row, shape, random)


# The functions that draw the digits of these kinds and place them on the sheet. All other kinds use `_one`.
_SHEETS: dict[str, Callable[..., Floats]] = {"tiny": _tiny, "thick": _thick, "thin": _thin, "two digits": _two}


def _digit(image: NDArray[np.uint8], size: float, grow: float) -> Floats:
    """Return the ink of a digit, cut to its box. `size` is about the longer side of the box.

    `grow` moves the edges of the strokes outward by this length, in units of `size`.
    """
    factor = size / 20
    big = _zoomed(np.pad(image, 4).astype(float) / 255, factor, order=3)
    level = 0.4
    if grow:
        # The distance from the outline of the strokes, negative inside. With it, all strokes grow or shrink equally.
        outline: Floats = ndimage.distance_transform_edt(big < level) - ndimage.distance_transform_edt(big >= level)
        ink = np.clip(0.5 + grow * size - outline, 0, 1)
        if not (ink > 0.5).any():
            ink = np.clip(0.5 - outline - float(outline.min()) - 1, 0, 1)
    else:
        # Soft edges are at most about two pixels wide. Pixels without ink in the image get no ink.
        ink = np.clip(0.5 + (big - level) * max(factor / 2, 0.5 / level), 0, 1)
    rows, columns = np.nonzero(ink > 0.1)
    return ink[int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]


def _zoomed(image: Floats, factor: float, order: int) -> Floats:
    zoomed: Floats = ndimage.zoom(image, factor, order=order)
    return zoomed


def _blurred(image: Floats, sigma: float) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(image, sigma)
    return blurred


def _rotated(image: Floats, degrees: float) -> Floats:
    rotated: Floats = ndimage.rotate(image, degrees, reshape=False, order=1)
    return rotated


def _placed(image: NDArray[np.uint8], shape: tuple[int, int], size: float, random: Random, grow: float = 0) -> Floats:
    return _at(_digit(image, size, grow), shape, random)


def _at(ink: Floats, shape: tuple[int, int], random: Random) -> Floats:
    """Return a sheet of this shape with the ink at a random place. Shrink the ink if it does not fit."""
    margin = int(0.1 * max(ink.shape))
    sheet = np.zeros(shape)
    if any(side + 2 * margin > most for side, most in zip(ink.shape, shape, strict=True)):
        scale = min((most - 2) / (side + 2 * margin) for side, most in zip(ink.shape, shape, strict=True))
        ink = np.clip(_zoomed(ink, scale, order=1), 0, 1)
        margin = int(margin * scale)
    top, left = (
        int(random.integers(margin, most - side - margin + 1)) for side, most in zip(ink.shape, shape, strict=True)
    )
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return sheet


def _plain(scene: Scene, own: Random) -> Floats:
    return scene.reflectance


def _along(shape: tuple[int, int], own: Random) -> Floats:
    """Return a coordinate along a random direction, from 0 to 1 over the picture."""
    angle = own.uniform(0, 2 * np.pi)
    rows, columns = np.indices(shape)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    return np.asarray((along - along.min()) / np.ptp(along))


def _shading(scene: Scene, own: Random) -> Floats:
    """Light that decreases linearly to one half in a random direction."""
    return scene.reflectance * (1 - 0.5 * _along(scene.ink.shape, own))


def _shadow(scene: Scene, own: Random) -> Floats:
    """A shadow that takes 30% of the light. Its straight edge is 0.1–4 pixels wide, near the middle of the picture."""
    along = _along(scene.ink.shape, own)
    edge = own.uniform(0.3, 0.7)
    width = own.uniform(0.2, 3) / max(scene.ink.shape)
    return np.asarray(scene.reflectance * (1 - 0.3 * np.clip((along - edge) / width + 0.5, 0, 1)))


def _soft_shadow(scene: Scene, own: Random) -> Floats:
    """A shadow that takes half of the light, with an edge as wide as a tenth to a third of the picture."""
    along = _along(scene.ink.shape, own)
    edge, width = own.uniform(0.3, 0.7), own.uniform(0.1, 0.33)
    return np.asarray(scene.reflectance * (1 - 0.5 * np.clip((along - edge) / width + 0.5, 0, 1)))


def _vignette(scene: Scene, own: Random) -> Floats:
    """Light that decreases with the squared distance from the middle, to 35–55% in the corners."""
    rows, columns = (np.linspace(-1, 1, n) for n in scene.ink.shape)
    return scene.reflectance * (1 - own.uniform(0.45, 0.65) * (rows[:, None] ** 2 + columns**2) / 2)


def _frame(scene: Scene, own: Random) -> Floats:
    """A dark line along one to four edges, 1–12 pixels wide. A quarter of the frames are 1–6 pixels from the edge."""
    picture = scene.reflectance.copy()
    width = int(own.integers(1, 5) if own.random() < 0.5 else own.integers(5, 13))
    start = int(own.integers(1, 7)) if own.random() < 0.25 else 0
    sides = own.choice(4, size=int(own.integers(1, 5)), replace=False)
    level = own.uniform(0, 0.35)
    for side in sides.tolist():
        rotated = np.rot90(picture, side)  # a view of the picture
        rotated[start : start + width, start : rotated.shape[1] - start] = level
    return picture


def _table(scene: Scene, own: Random) -> Floats:
    """A sheet on a dark, grainy table. Half of the sheets are rotated by up to 8°."""
    height, width = scene.ink.shape
    share = own.uniform(0.6, 0.9)
    angle = own.uniform(-8, 8) if own.random() < 0.5 else 0.0
    tall, wide = (round(n / share) for n in (height, width))
    inside: Floats = np.ones(scene.ink.shape)
    corner = [round((n - m) * own.uniform(0.2, 0.8)) for n, m in zip((tall, wide), (height, width), strict=True)]
    pads = [(c, n - m - c) for c, n, m in zip(corner, (tall, wide), (height, width), strict=True)]
    ink, inside = np.pad(scene.ink, pads), np.pad(inside, pads)
    if angle:
        ink, inside = _rotated(ink, angle), _rotated(inside, angle)
    table = own.uniform(0.05, 0.3) + 0.02 * _blurred(own.standard_normal(ink.shape), 1.0) / 0.28
    sheet = scene._replace(ink=ink).reflectance
    return np.asarray(np.clip(table + (sheet - table) * inside, 0, 1))


def _light_ink(scene: Scene, own: Random) -> Floats:
    """Light ink on a dark board, under light that decreases by up to 30%."""
    picture = scene._replace(paper=scene.stroke, stroke=scene.paper).reflectance
    return np.asarray(picture * (1 - own.uniform(0, 0.3) * _along(scene.ink.shape, own)))


_KINDS: dict[str, Callable[[Scene, Random], Floats]] = {
    "clean": _plain,
    "tiny": _plain,
    "thick": _plain,
    "thin": _plain,
    "noise": _plain,
    "color": _plain,
    "light ink": _light_ink,
    "shading": _shading,
    "hard shadow": _shadow,
    "soft shadow": _soft_shadow,
    "vignette": _vignette,
    "frame": _frame,
    "dark table": _table,
    "two digits": _plain,
}
KINDS = tuple(_KINDS)


def _camera(picture: Floats, random: Random, own: Random, kind: str) -> bytes:
    """Blur the picture, color it if the kind is "color", add noise, and compress the result as JPEG."""
    picture = 255 * _blurred(picture, random.uniform(0.3, 1.2))
    sigma, quality = random.uniform(1, 3), int(random.integers(70, 96))
    if kind == "noise":
        sigma = own.uniform(8, 20)
    if kind == "color":
        picture = _equally_gray(picture, own)
        quality = 95  # a lower quality stores the colors more coarsely
    noisy = picture + sigma * own.standard_normal(picture.shape)
    content = io.BytesIO()
    image = Image.fromarray(np.rint(np.clip(noisy, 0, 255)).astype(np.uint8))
    image.save(content, "JPEG", quality=quality, subsampling=0)
    return content.getvalue()


def _equally_gray(picture: Floats, own: Random) -> Floats:
    """Give the paper and the ink two colors of the same gray level."""
    ink = (float(picture.max()) - picture) / float(np.ptp(picture))
    paper, stroke = ((200, 110, 90), (60, 170, 90)) if own.random() < 0.5 else ((90, 130, 215), (170, 105, 125))
    colors = [np.array(color, float) for color in (paper, stroke)]
    weights = np.array([0.299, 0.587, 0.114])  # Pillow's weights of the gray level
    colors[1] += weights @ (colors[0] - colors[1])
    return np.asarray(colors[0] + ink[..., None] * (colors[1] - colors[0]))

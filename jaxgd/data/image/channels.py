"""Reduce a Pillow picture to gray, whether it has an alpha channel, colors, or values of more than eight bits."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgd.data.image.paper import Gray, contrast

# Pillow is imported only where a picture is read, so its types are only for type checkers.
if TYPE_CHECKING:
    from PIL.Image import Image

    PillowImage = Image
else:
    PillowImage = Any

# The channel is chosen from a small copy with at most about this number of pixels.
_SMALL = 2**16
# Gray levels. A picture whose color channels differ by less is gray. An alpha channel that varies by less holds no
# shape.
_COLORED = 16
# A color channel replaces gray if its contrast is at least this many times the contrast of gray. Ordinary colored ink
# on white has a smaller ratio.
_STRONGER = 2.0
# The alpha channel holds the shape if the middle 96% of the opaque pixels differ by at most this many gray levels.
_ONE_BRIGHTNESS = 32


def gray_of(picture: PillowImage) -> Gray:
    """Reduce a Pillow picture to gray, from 0 (black) to 255 (white).

    - If the alpha channel varies and the opaque pixels have nearly one brightness, the shape is in the alpha channel.
      Opaque pixels then become black, whatever their color. Otherwise a transparent picture is laid on white.
    - The gray level of Pillow is 0.299 red + 0.587 green + 0.114 blue. The color channel with the strongest ink
      replaces the gray level if its ink is at least twice as strong as in the gray level.
    - Values of Pillow's modes F and I are stretched: the smallest becomes 0, the largest 255.
    - 16-bit values, and values of mode I in a PNG file, are not stretched. They are multiplied by 255 / (2ᵇ − 1). Here
      b ≥ 8 is the smallest number of bits that holds all values.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return _of_numbers(picture)
    transparent = picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    side = (_SMALL / (picture.width * picture.height)) ** 0.5
    width, height = (max(1, min(n, round(n * side))) for n in picture.size)
    if transparent:
        if _alpha_is_ink(_small(picture, "RGBA", (width, height))):
            return _in_strips(picture, "A")
    elif picture.mode in ("L", "1"):
        return _in_strips(picture, "L")
    return _in_strips(picture, _strongest(_small(picture, "RGBA" if transparent else "RGB", (width, height))))


def _of_numbers(picture: PillowImage) -> Gray:
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        low, high = 0.0, float(2 ** max(8, int(values.max()).bit_length()) - 1)
    else:
        low, high = float(values.min()), float(values.max())
    # Compute in place: a picture of the largest size takes 0.4 GB in float64.
    values -= low
    values *= 255 / max(high - low, np.finfo(float).tiny)
    return np.rint(values, out=values).astype(np.uint8)


def _small(picture: PillowImage, mode: str, size: tuple[int, int]) -> PillowImage:
    """Return a small copy in this mode. Work in strips, so that Pillow's intermediate copies stay small."""
    from PIL import Image

    whole = Image.new(mode, picture.size)
    for box in _boxes(picture):
        whole.paste(picture.crop(box).convert(mode), box[:2])
    return whole.resize(size, Image.Resampling.BOX)


def _boxes(picture: PillowImage) -> list[tuple[int, int, int, int]]:
    rows = max(1, 2**20 // picture.width)
    return [(0, top, picture.width, min(top + rows, picture.height)) for top in range(0, picture.height, rows)]


def _alpha_is_ink(small: PillowImage) -> bool:
    alpha = _values(small.getchannel("A"))
    if int(alpha.max()) - int(alpha.min()) < _COLORED:
        return False
    gray = _values(small.convert("RGB").convert("L"))[alpha >= 0.9 * alpha.max()]
    return float(np.percentile(gray, 98) - np.percentile(gray, 2)) <= _ONE_BRIGHTNESS


def _values(picture: PillowImage) -> Gray:
    """Return the bytes of a picture of one channel."""
    return np.asarray(picture)


def _strongest(small: PillowImage) -> str:
    """Return the channel to read: "L", "R", "G" or "B"."""
    small = _opaque(small)
    channels = {name: _values(small.getchannel(name)) for name in "RGB"}
    stacked = np.stack(list(channels.values()))
    if int((stacked.max(axis=0) - stacked.min(axis=0)).max()) < _COLORED:
        return "L"
    strength = {name: contrast(values) for name, values in channels.items()}
    best = max(strength, key=lambda name: strength[name])
    return best if strength[best] >= _STRONGER * contrast(_values(small.convert("L"))) else "L"


def _in_strips(picture: PillowImage, channel: str) -> Gray:
    """Return one channel of the picture. In channel A, opaque pixels are black."""
    return np.concatenate([_channel(picture.crop(box), channel) for box in _boxes(picture)])


def _channel(picture: PillowImage, channel: str) -> Gray:
    if channel == "A":
        return 255 - _values(picture.convert("RGBA").getchannel("A"))
    opaque = _opaque(picture)
    return _values(opaque.convert("L") if channel == "L" else opaque.getchannel(channel))


def _opaque(picture: PillowImage) -> PillowImage:
    """Lay a picture on white if it is transparent, and return it in mode RGB."""
    from PIL import Image

    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")

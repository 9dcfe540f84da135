"""Small pictures as PNG images inside the page, and arrays as text."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8

# Colors of weights above and below 0. The opacity shows the absolute value. Both colors suit light and dark pages.
_POSITIVE, _NEGATIVE = (230, 97, 0), (53, 132, 228)


def ink_url(image: UInt8[np.ndarray, "height width"]) -> str:
    """Return an image of ink as a data URL. The pixels are black, with the ink as their opacity.

    >>> ink_url(np.zeros((2, 2), np.uint8))[:22]
    'data:image/png;base64,'
    """
    return _url(np.stack([np.zeros_like(image), image], axis=-1), "LA")


def weights_url(w: Float[np.ndarray, "height width"], largest: float) -> str:
    """Return an image of weights as a data URL: orange above 0, blue below 0, and opaque where |w| ≥ `largest`.

    >>> weights_url(np.zeros((2, 2)), 1.0)[:22]
    'data:image/png;base64,'
    """
    opacity = np.rint(255 * np.clip(np.abs(w) / largest, 0, 1)).astype(np.uint8)
    colors = np.where((w > 0)[..., None], np.array(_POSITIVE, np.uint8), np.array(_NEGATIVE, np.uint8))
    return _url(np.concatenate([colors, opacity[..., None]], axis=-1), "RGBA")


def _url(pixels: UInt8[np.ndarray, "height width channels"], mode: str) -> str:
    from PIL import Image

    content = io.BytesIO()
    height, width, _ = pixels.shape
    Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes()).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def float_text(x: Float[np.ndarray, "*shape"]) -> str:
    """Return an array as base64 of little-endian float32.

    >>> float_text(np.array([1.0]))
    'AACAPw=='
    """
    return base64.b64encode(np.asarray(x).astype("<f4").tobytes()).decode()


def byte_text(x: UInt8[np.ndarray, "*shape"]) -> str:
    """Return an array of bytes as base64.

    >>> byte_text(np.array([0, 255], np.uint8))
    'AP8='
    """
    return base64.b64encode(x.tobytes()).decode()

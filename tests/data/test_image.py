import io
import json
import struct
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxgd.data import load_dataset
from jaxgd.data.idx import read_idx
from jaxgd.data.image import Frame, fit_to_frame, frame_of, read_picture
from jaxgd.errors import DataError, DtypeError, MissingDependencyError

MNIST = Frame(28, 28, 20, 20, "mass", 14.0, 14.0, 255, 0.5)


def drawing(seed, side=300):
    """A scrawl of thick strokes, 0 paper and 255 ink, somewhere on a sheet of its own."""
    random = np.random.default_rng(seed)
    sheet = Image.new("L", (side, side))
    points = random.uniform([0.25, 0.15], [0.65, 0.85], (4, 2)) * side
    ImageDraw.Draw(sheet).line([tuple(map(float, p)) for p in points], fill=255, width=side // 16, joint="curve")
    return np.asarray(sheet)


def by_hand(sheet):
    """MNIST's form by another way: Pillow's bounding box, blocks of repeated pixels, mass added up pixel by pixel."""
    ink = Image.fromarray(sheet)
    ink = np.asarray(ink.crop(ink.getbbox()), float)
    rows, columns = ink.shape
    height, width = (round(side * 20 / max(ink.shape)) for side in ink.shape)
    tall = np.repeat(ink, height, axis=0).reshape(height, rows, columns).mean(axis=1)
    small = np.repeat(tall, width, axis=1).reshape(height, width, columns).mean(axis=2)
    small *= 255 / small.max()
    mass = [sum(p[axis] * small[p] for p in np.ndindex(small.shape)) / small.sum() for axis in (0, 1)]
    top, left = (round(14 - m) for m in mass)
    framed = np.zeros((28, 28))
    framed[top : top + height, left : left + width] = small
    return np.rint(framed).astype(np.uint8)


def as_picture(image, *, factor=7, margins=(5, 80, 30, 9)):
    """The image enlarged with soft edges, its margins uneven, dark on light."""
    height, width = image.shape
    large = np.asarray(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC))
    return 255 - np.pad(large, (margins[:2], margins[2:]))


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def sheet():
    return drawing(0)


@pytest.fixture(scope="module")
def mnist(genuine_mnist):
    """The first 1,000 test images; None without the files."""
    return read_idx(genuine_mnist / "t10k-images-idx3-ubyte.gz")[:1000]


# The frame of a set


def test_frame_of_mnists_form():
    images = np.stack([by_hand(drawing(seed)) for seed in range(60)])
    frame = frame_of(images)
    assert frame[:8] == (28, 28, 20, 20, "mass", 14.0, 14.0, 255)
    assert 0.5 <= frame.slack <= 0.6


def test_frame_of_genuine_mnist(genuine_mnist):
    images = read_idx(genuine_mnist / "train-images-idx3-ubyte.gz")[:50_000]
    start = time.perf_counter()
    frame = frame_of(images)
    assert time.perf_counter() - start < 1.0  # takes 0.05 s; the rest is for a busy machine
    assert frame[:8] == (28, 28, 20, 20, "mass", 14.0, 14.0, 255)
    assert 0.5 <= frame.slack <= 0.6


def test_frame_of_the_small_digits():
    """They fill their height, and stand in the middle whatever their mass."""
    images = load_dataset("digits").train.images
    frame = frame_of(images)
    assert frame[:8] == (8, 8, 8, 7, "box", 3.5, 3.5, 255)
    same = [np.array_equal(fit_to_frame(image, frame), image) for image in images[:300]]
    assert np.mean(same) >= 0.99


def test_frame_of_a_tall_form():
    """Images that are not square, with ink that is not black and a stray empty one."""
    random = np.random.default_rng(0)
    images = np.zeros((50, 40, 24), np.uint8)
    for image in images[1:]:
        height, width = (30, random.integers(6, 17)) if random.random() < 0.6 else (random.integers(12, 31), 16)
        image[5 : 5 + height, 4 : 4 + width] = 180
    frame = frame_of(images)
    assert (frame.height, frame.width, frame.box_height, frame.box_width, frame.peak) == (40, 24, 30, 16, 180)
    assert all(fit_to_frame(image, frame) is image for image in images[1:])


def test_frame_of_digits_of_any_size():
    """Where training images differ in size and place, any image of that size is like them."""
    images = np.zeros((40, 32, 32), np.uint8)
    for i, image in enumerate(images):
        top, left, size = i % 8, i % 5, 8 + i % 17
        image[top : top + size, left : left + size] = 255
    frame = frame_of(images)
    assert all(fit_to_frame(image, frame) is image for image in images)


def test_frame_of_empty_images():
    assert frame_of(np.zeros((3, 5, 7), np.uint8))[:5] == (5, 7, 5, 7, "box")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 3, 1)], ids=str)
def test_frame_of_hardly_anything(shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    frame = frame_of(images)
    assert fit_to_frame(drawing(0), frame).shape == shape[1:]


def test_frame_of_large_images():
    images = np.broadcast_to(drawing(0), (3000, 300, 300))  # all of them would be 270 million pixels
    start = time.perf_counter()
    assert frame_of(images).height == 300
    assert time.perf_counter() - start < 3.0  # takes 0.3 s; the rest is for a busy machine


def test_frame_goes_through_json():
    frame = frame_of(load_dataset("digits").train.images)
    assert Frame(**json.loads(json.dumps(frame._asdict()))) == frame


# Fitting


@pytest.mark.parametrize("seed", range(5))
def test_against_exact_area(seed):
    """Both average by exact area, one in float32 and one in float64: a rounding may fall the other way."""
    sheet = drawing(seed)
    difference = np.abs(fit_to_frame(sheet, MNIST).astype(int) - by_hand(sheet))
    assert difference.max() <= 1


def test_in_form_is_unchanged():
    for seed in range(20):
        image = by_hand(drawing(seed))
        assert fit_to_frame(image, MNIST) is image


def test_out_of_form_is_changed():
    """The right size is not enough: moved, smaller, on gray paper or too pale, a digit is framed anew."""
    image = by_hand(drawing(1))
    small = np.asarray(Image.fromarray(image).resize((14, 14), Image.Resampling.BOX))
    spoiled = [np.roll(image, 2, 1), np.pad(small, 7), 40 + image // 2, image // 3]
    for other in spoiled:
        fitted = fit_to_frame(other, MNIST)
        assert not np.array_equal(fitted, other)
        assert fitted.max() == 255
        assert np.median(fitted) == 0
    np.testing.assert_array_equal(fit_to_frame(np.roll(image, 2, 1), MNIST), image)


def test_genuine_mnist_is_unchanged(mnist):
    same = [np.array_equal(fit_to_frame(image, MNIST), image) for image in mnist]
    assert np.mean(same) >= 0.99  # all of them; 99.8% of all 10,000


def test_genuine_mnist_there_and_back(mnist, tmp_path):
    """Through a soft enlargement, a level of 6 to 8 of 255 is lost on average; one pixel of shift costs about 20."""
    images = mnist[:200]
    back = [fit_to_frame(read_picture(saved(tmp_path / "x.png", as_picture(i))), MNIST) for i in images]
    assert np.abs(np.stack(back).astype(int) - images).mean() <= 8
    assert np.abs(np.roll(back, 1, 2).astype(int) - images).mean() >= 15


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back(seed, tmp_path):
    image = by_hand(drawing(seed))
    back = fit_to_frame(read_picture(saved(tmp_path / "x.png", as_picture(image))), MNIST)
    assert np.abs(back.astype(int) - image).mean() <= 8


def test_small_digits_there_and_back():
    """Enlarged, an 8×8 digit loses 15 of 255: large gray areas are no ink. One pixel of shift costs five times that."""
    images = load_dataset("digits").test.images
    frame = frame_of(images)
    back = [fit_to_frame(np.pad(np.kron(i, np.ones((9, 9), np.uint8)), 20), frame) for i in images]
    assert np.abs(np.stack(back).astype(int) - images).mean() <= 18
    assert np.abs(np.roll(back, 1, 2).astype(int) - images).mean() >= 60


def test_noise_is_not_ink(sheet):
    """Uneven gray paper with grain, and a grain of dust far away."""
    random = np.random.default_rng(0)
    clean = fit_to_frame(sheet, MNIST)
    shadow = np.linspace(30, 60, sheet.shape[1])
    noisy = np.maximum(sheet * 0.8, shadow + random.normal(0, 5, sheet.shape))
    noisy[-4:-2, -4:-2] = 200
    fitted = fit_to_frame(np.rint(noisy).astype(np.uint8), MNIST)
    assert np.abs(fitted.astype(int) - clean).mean() <= 3
    assert (fitted[clean == 0] < 64).all()


def test_detached_stroke_is_ink():
    """What is dropped as dust is far smaller than the bar of a 5."""
    image = np.zeros((100, 100), np.uint8)
    image[30:90, 30:45] = image[10:14, 60:66] = 255
    fitted = fit_to_frame(image, MNIST)
    assert [int(np.ptp(i)) + 1 for i in np.nonzero(fitted)] == [20, 9]  # 80 rows and 36 columns, scaled by 1/4


def lopsided():
    """Nearly all ink at one end: centered by mass, the other end would leave the frame."""
    image = np.zeros((200, 200), np.uint8)
    image[20:180, 98:102] = image[20:40, 60:140] = 255
    return image


@pytest.mark.parametrize("turns", range(4))
def test_never_clipped(turns):
    fitted = fit_to_frame(np.rot90(lopsided(), turns).copy(), Frame(28, 28, 26, 26, "mass", 14.0, 14.0, 255, 0.5))
    ink = np.nonzero(fitted)
    assert sorted(int(np.ptp(i)) + 1 for i in ink) == [13, 26]


@pytest.mark.parametrize(
    ("shape", "ink"),
    [
        ((3, 3), np.s_[1:2, 1:2]),
        ((500, 400), np.s_[77:78, 300:301]),
        ((900, 9), np.s_[3:890, 4:5]),
        ((9, 900), np.s_[4:5, 3:890]),
        ((65_000, 3), np.s_[10:64_000, 1:2]),
        ((3, 65_000), np.s_[1:2, 10:64_000]),
    ],
    ids=str,
)
def test_extreme_ink(shape, ink):
    image = np.zeros(shape, np.uint8)
    image[ink] = 255
    fitted = fit_to_frame(image, MNIST)
    sides = [int(np.ptp(i)) + 1 for i in np.nonzero(fitted)]
    assert max(sides) == 20
    assert min(sides) == (1 if max(shape) >= 900 else 20)
    assert fitted.max() == 255


@pytest.mark.parametrize("value", [0, 90, 255])
def test_fitting_a_blank_image(value):
    with pytest.raises(DataError, match=r"fit_to_frame: .*a blank one of 28×28 pixels"):
        fit_to_frame(np.full((28, 28), value, np.uint8), MNIST)


@pytest.mark.bad_input
def test_wrong_arrays():
    with pytest.raises(DtypeError, match=r"frame_of: images must be uint8, got float64\[2,3,3\]"):
        frame_of(np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match=r"frame_of: images must have the shape \(n, height, width\).*\(3, 3\)"):
        frame_of(np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match=r"frame_of: .*\(0, 3, 3\)"):
        frame_of(np.zeros((0, 3, 3), np.uint8))
    with pytest.raises(DtypeError, match=r"fit_to_frame: image must be uint8, got list"):
        fit_to_frame([[0, 1]], MNIST)
    with pytest.raises(DataError, match=r"fit_to_frame: image must have the shape \(height, width\).*\(3, 3, 3\)"):
        fit_to_frame(np.zeros((3, 3, 3), np.uint8), MNIST)


# Reading


def test_polarity(sheet, tmp_path):
    """Light on dark stays, dark on light is inverted, to the bit."""
    for array in (sheet, 255 - sheet):
        np.testing.assert_array_equal(read_picture(saved(tmp_path / "x.png", array)), sheet)


def test_polarity_on_dim_paper(sheet, tmp_path):
    """The border, darker than middle gray, is still lighter than the ink."""
    dim = (110 - sheet * (80 / 255)).astype(np.uint8)
    dim[7, 7] = 255  # one glaring pixel does not make the ink light
    read = read_picture(saved(tmp_path / "x.png", dim))
    assert read[0, 0] == 255 - 110
    assert read[sheet == 255].min() == 255 - 30


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK", "I", "F"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_modes(mode, dark, sheet, tmp_path):
    """Black and white look alike in every mode."""
    two = np.where(sheet > 127, 255, 0).astype(np.uint8)
    gray = 255 - two if dark else two
    if mode == "I;16":
        picture = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        picture = Image.fromarray(gray.astype({"I": np.int32, "F": np.float32}[mode]) * 1000 - 7)
    else:
        picture = Image.fromarray(gray).convert("RGB").convert(mode)
    assert picture.mode == mode
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I", "F") else "x.png")
    picture.save(path)
    np.testing.assert_array_equal(read_picture(path), two)


@pytest.mark.parametrize("name", ["x.jpg", "x.gif", "x.bmp", "x.webp", "x.tif", "x.pgm", "digit"])
def test_formats(name, sheet, tmp_path):
    """The content decides, not the name."""
    Image.fromarray(255 - sheet).save(tmp_path / name, **({} if "." in name else {"format": "PNG"}))
    assert np.abs(read_picture(tmp_path / name).astype(int) - sheet).mean() < 2  # JPEG and WebP lose a little


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_paper_is_white(mode, sheet, tmp_path):
    """Black everywhere, seen only where it is opaque."""
    picture = Image.new("L", sheet.shape[::-1]).convert(mode)
    picture.putalpha(Image.fromarray(sheet))
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png"), sheet)


def test_a_transparent_color(sheet, tmp_path):
    """Palettes and gray pictures may name the color that is not there; without it these would be blank."""
    two = np.where(sheet > 127, 1, 0).astype(np.uint8)
    palette = Image.fromarray(two)
    palette = palette.convert("P")
    palette.putpalette([0, 0, 0] * 2)
    palette.save(tmp_path / "p.png", transparency=0)
    saved(tmp_path / "l.png", two, transparency=0)
    assert np.array_equal(read_picture(tmp_path / "p.png"), two * 255)
    assert np.array_equal(read_picture(tmp_path / "l.png"), two * 254)


def test_colored_ink(sheet, tmp_path):
    color = np.full((*sheet.shape, 3), 255, np.uint8)
    color[sheet > 127] = (30, 60, 200)
    fitted = fit_to_frame(read_picture(saved(tmp_path / "x.png", color)), MNIST)
    assert np.abs(fitted.astype(int) - fit_to_frame(sheet, MNIST)).mean() < 1


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.full((5, 5), 60_000, np.uint16)
    values[2, 1:4] = 257, 5000, 30_000
    expected = 255 - np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "x.png", values)), expected)


def test_turned_as_the_camera_says(sheet, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    saved(tmp_path / "x.png", 255 - np.rot90(sheet).copy(), exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png"), sheet)


def test_huge(tmp_path):
    small = drawing(3, 150)
    path = saved(tmp_path / "x.png", 255 - np.kron(small, np.ones((25, 25), np.uint8)), compress_level=1)
    fitted = fit_to_frame(read_picture(str(path)), MNIST)
    assert np.abs(fitted.astype(int) - fit_to_frame(small, MNIST)).max() <= 2


def png_of_size(width, height):
    """A PNG whose header lies about its size."""
    stream = io.BytesIO()
    Image.new("1", (1, 1)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("size", "got"),
    [
        ((8000, 7000), "8000×7000"),
        ((11_000, 10_000), "11000×10000"),
        ((100_000, 100_000), "far more"),
        ((70_000, 2), "70000×2"),
    ],
    ids=str,
)
def test_too_large(size, got, tmp_path):
    limit = Image.MAX_IMAGE_PIXELS
    (tmp_path / "x.png").write_bytes(png_of_size(*size))
    with warnings.catch_warnings(record=True) as caught, pytest.raises(DataError, match=rf"x\.png: .*got {got}\."):
        read_picture(tmp_path / "x.png")
    assert not caught
    assert limit == Image.MAX_IMAGE_PIXELS


def test_missing(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.png: .*No such file"):
        read_picture(tmp_path / "none.png")


def test_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"read_picture: cannot read .*: expected a picture"):
        read_picture(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a digit", b"\x89PNG\r\n\x1a\n", b"\x00" * 999], ids=repr)
def test_no_picture(content, tmp_path):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: expected a picture in a format Pillow reads"):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.tif", "x.webp", "x.bmp"])
def test_truncated(name, tmp_path):
    """Cut anywhere, a picture is refused by its name; nothing is made up and nothing else escapes."""
    grainy = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    content = saved(tmp_path / name, grainy).read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=rf"read_picture: .*{name}: expected"):
            read_picture(tmp_path / name)


def test_damaged(sheet, tmp_path):
    content = bytearray(saved(tmp_path / "x.png", sheet).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: expected a complete picture"):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank(value, tmp_path):
    grain = np.random.default_rng(0).integers(0, 4, (40, 40))
    blank = np.clip(value + grain, 0, 255).astype(np.uint8)
    with pytest.raises(DataError, match=r"x\.png: expected one digit, got a blank picture"):
        read_picture(saved(tmp_path / "x.png", blank))


def test_not_finite(tmp_path):
    values = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(DataError, match=r"x\.tif: .*not finite"):
        read_picture(saved(tmp_path / "x.tif", values))


def test_without_pillow(monkeypatch, sheet, tmp_path):
    path = saved(tmp_path / "x.png", sheet)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install pillow"):
        read_picture(path)

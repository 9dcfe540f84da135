import io
import json
import os
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
    """Draw a scrawl of thick strokes, 255 on 0, off the center of a large sheet."""
    random = np.random.default_rng(seed)
    sheet = Image.new("L", (side, side))
    points = random.uniform([0.25, 0.15], [0.65, 0.85], (4, 2)) * side
    ImageDraw.Draw(sheet).line([tuple(map(float, p)) for p in points], fill=255, width=side // 16, joint="curve")
    return np.asarray(sheet)


def by_hand(sheet):
    """Fit a drawing to MNIST's form, independently of jaxgd."""
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
    """Return the image enlarged with soft edges and uneven margins, as dark ink on light paper."""
    height, width = image.shape
    large = np.asarray(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC))
    return 255 - np.pad(large, (margins[:2], margins[2:]))


def read(path):
    """Return the ink of a picture, from 0 (paper) to 255 (ink)."""
    return read_picture(path).ink


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def sheet():
    return drawing(0)


@pytest.fixture(scope="module")
def mnist(genuine_mnist):
    """The first 500 test images of genuine MNIST."""
    return read_idx(genuine_mnist / "t10k-images-idx3-ubyte.gz")[:500]


# frame_of


def test_frame_of_measures_mnists_form():
    images = np.stack([by_hand(drawing(seed)) for seed in range(60)])
    frame = frame_of(images)
    assert frame[:8] == (28, 28, 20, 20, "mass", 14.0, 14.0, 255)
    assert 0.5 <= frame.slack <= 0.6


def test_frame_of_measures_genuine_mnist(genuine_mnist):
    images = read_idx(genuine_mnist / "train-images-idx3-ubyte.gz")[:50_000]
    start = time.perf_counter()
    frame = frame_of(images)
    assert time.perf_counter() - start < 1.0  # it takes 0.05 s; the limit allows for a busy machine
    assert frame[:8] == (28, 28, 20, 20, "mass", 14.0, 14.0, 255)
    assert 0.5 <= frame.slack <= 0.6


def test_frame_of_measures_the_small_digits():
    """The boxes of the small digits are centered. Their centers of mass are not."""
    images = load_dataset("digits").train.images
    frame = frame_of(images)
    assert frame[:8] == (8, 8, 8, 7, "box", 3.5, 3.5, 255)
    same = [np.array_equal(fit_to_frame(image, frame), image) for image in images[:300]]
    assert np.mean(same) >= 0.99


def test_frame_of_measures_tall_images():
    """The images are not square, their ink is gray, and one image is empty."""
    random = np.random.default_rng(0)
    images = np.zeros((50, 40, 24), np.uint8)
    for image in images[1:]:
        height, width = (30, random.integers(6, 17)) if random.random() < 0.6 else (random.integers(12, 31), 16)
        image[5 : 5 + height, 4 : 4 + width] = 180
    frame = frame_of(images)
    assert (frame.height, frame.width, frame.box_height, frame.box_width, frame.peak) == (40, 24, 30, 16, 180)
    assert all(fit_to_frame(image, frame) is image for image in images[1:])


def test_training_digits_of_any_size_fit_unchanged():
    """`fit_to_frame` returns every training image unchanged, although the digits vary in size and position."""
    images = np.zeros((40, 32, 32), np.uint8)
    for i, image in enumerate(images):
        top, left, size = i % 8, i % 5, 8 + i % 17
        image[top : top + size, left : left + size] = 255
    frame = frame_of(images)
    assert all(fit_to_frame(image, frame) is image for image in images)


def test_the_box_of_a_few_large_images_stays_inside_the_frame():
    images = np.zeros((2, 2000, 1000), np.uint8)
    images[:, 700] = images[0, :, 500] = images[1, 300:1700, 500] = 255  # two crosses
    frame = frame_of(images)
    assert frame.box_height <= frame.height
    assert frame.box_width <= frame.width


def test_frame_of_empty_images_is_the_whole_image():
    assert frame_of(np.zeros((3, 5, 7), np.uint8))[:5] == (5, 7, 5, 7, "box")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 3, 1)], ids=str)
def test_frame_of_tiny_images_can_be_used(shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    frame = frame_of(images)
    assert fit_to_frame(drawing(0), frame).shape == shape[1:]


def test_frame_of_large_images_takes_less_than_3_seconds():
    images = np.broadcast_to(drawing(0), (3000, 300, 300))  # 270 million pixels in all
    start = time.perf_counter()
    assert frame_of(images).height == 300
    assert time.perf_counter() - start < 3.0  # it takes 0.3 s; the limit allows for a busy machine


def test_json_restores_a_frame():
    frame = frame_of(load_dataset("digits").train.images)
    assert Frame(**json.loads(json.dumps(frame._asdict()))) == frame


# fit_to_frame


@pytest.mark.parametrize("seed", range(5))
def test_fitting_agrees_with_an_independent_implementation(seed):
    """Both average by exact area. One uses float32, the other float64, so they may differ by 1."""
    sheet = drawing(seed)
    difference = np.abs(fit_to_frame(sheet, MNIST).astype(int) - by_hand(sheet))
    assert difference.max() <= 1


def test_an_image_that_fits_is_unchanged():
    for seed in range(20):
        image = by_hand(drawing(seed))
        assert fit_to_frame(image, MNIST) is image


def test_an_image_that_does_not_fit_is_changed():
    """An image of the right size is fitted if its digit is moved, too small, too pale or on gray paper."""
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
    assert np.mean(same) >= 0.99  # measured: 100% of these 500, and 99.8% of all 10,000


def test_enlarged_images_of_genuine_mnist_are_restored(mnist, tmp_path):
    """The mean error after a soft enlargement is 6 to 8 of 255. A shift by one pixel gives an error of about 20."""
    images = mnist[:100]
    back = [fit_to_frame(read(saved(tmp_path / "x.png", as_picture(i))), MNIST) for i in images]
    assert np.abs(np.stack(back).astype(int) - images).mean() <= 8
    assert np.abs(np.roll(back, 1, 2).astype(int) - images).mean() >= 15


@pytest.mark.parametrize("seed", range(3))
def test_an_enlarged_drawing_is_restored(seed, tmp_path):
    image = by_hand(drawing(seed))
    back = fit_to_frame(read(saved(tmp_path / "x.png", as_picture(image))), MNIST)
    assert np.abs(back.astype(int) - image).mean() <= 8


def test_enlarged_small_digits_are_restored():
    """The mean error is 15 of 255, because large gray areas do not count as ink. A shift by one pixel gives
    over 60.
    """
    images = load_dataset("digits").test.images
    frame = frame_of(images)
    back = [fit_to_frame(np.pad(np.kron(i, np.ones((9, 9), np.uint8)), 20), frame) for i in images]
    assert np.abs(np.stack(back).astype(int) - images).mean() <= 18
    assert np.abs(np.roll(back, 1, 2).astype(int) - images).mean() >= 60


def test_noise_is_not_ink(sheet):
    """The paper is gray, uneven and noisy, with a speck of dust far from the digit."""
    random = np.random.default_rng(0)
    clean = fit_to_frame(sheet, MNIST)
    shadow = np.linspace(30, 60, sheet.shape[1])
    noisy = np.maximum(sheet * 0.8, shadow + random.normal(0, 5, sheet.shape))
    noisy[-4:-2, -4:-2] = 200
    fitted = fit_to_frame(np.rint(noisy).astype(np.uint8), MNIST)
    assert np.abs(fitted.astype(int) - clean).mean() <= 3
    assert (fitted[clean == 0] < 64).all()


def test_detached_stroke_is_ink():
    """A detached piece is dropped as dust only if it has at most 0.5% of the ink. This one has 2.6%."""
    image = np.zeros((100, 100), np.uint8)
    image[30:90, 30:45] = image[10:14, 60:66] = 255
    fitted = fit_to_frame(image, MNIST)
    assert [int(np.ptp(i)) + 1 for i in np.nonzero(fitted)] == [20, 9]  # 80 rows and 36 columns, scaled by 1/4


def lopsided():
    """Draw a T with 3/4 of its ink in the bar. Centering by mass would move the foot out of the frame."""
    image = np.zeros((200, 200), np.uint8)
    image[20:180, 98:102] = image[20:40, 60:140] = 255
    return image


@pytest.mark.parametrize("turns", range(4))
def test_an_off_center_digit_is_not_clipped(turns):
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
def test_ink_of_extreme_size_or_aspect_ratio_fits(shape, ink):
    image = np.zeros(shape, np.uint8)
    image[ink] = 255
    fitted = fit_to_frame(image, MNIST)
    sides = [int(np.ptp(i)) + 1 for i in np.nonzero(fitted)]
    assert max(sides) == 20
    assert min(sides) == (1 if max(shape) >= 900 else 20)
    assert fitted.max() == 255


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_blank_image_is_refused(value):
    with pytest.raises(DataError, match=r"fit_to_frame: .*a blank one of 28×28 pixels"):
        fit_to_frame(np.full((28, 28), value, np.uint8), MNIST)


@pytest.mark.bad_input
def test_arrays_of_a_wrong_dtype_or_shape_are_refused():
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


# read_picture


def test_dark_ink_on_light_paper_is_inverted(sheet, tmp_path):
    """Dark ink on light paper and light ink on dark paper give exactly the same ink."""
    for array in (sheet, 255 - sheet):
        np.testing.assert_array_equal(read(saved(tmp_path / "x.png", array)), sheet)


def test_polarity_is_detected_on_dim_paper(sheet, tmp_path):
    """The paper is darker than middle gray, but lighter than the ink."""
    dim = (110 - sheet * (80 / 255)).astype(np.uint8)
    dim[7, 7] = 255  # one bright pixel must not decide the polarity
    ink = read(saved(tmp_path / "x.png", dim))
    assert ink[0, 0] == 255 - 110
    assert ink[sheet == 255].min() == 255 - 30


def test_polarity_is_decided_by_the_strongest_contrast(sheet, tmp_path):
    """Most pixels are slightly darker than the border, and few are much lighter. The light pixels are the ink."""
    shaded = np.maximum(sheet, 10)
    shaded[:3] = shaded[-3:] = shaded[:, :3] = shaded[:, -3:] = 40
    assert (shaded.astype(int) - 40).sum() < 0
    np.testing.assert_array_equal(read(saved(tmp_path / "x.png", shaded)), shaded)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK", "I", "F"])
@pytest.mark.parametrize("dark", [False, True], ids=["light ink", "dark ink"])
def test_every_mode_gives_the_same_black_and_white(mode, dark, sheet, tmp_path):
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
    np.testing.assert_array_equal(read(path), two)


@pytest.mark.parametrize("name", ["x.jpg", "x.gif", "x.bmp", "x.webp", "x.tif", "x.pgm", "digit"])
def test_common_formats_are_read_also_without_an_ending(name, sheet, tmp_path):
    Image.fromarray(255 - sheet).save(tmp_path / name, **({} if "." in name else {"format": "PNG"}))
    assert np.abs(read(tmp_path / name).astype(int) - sheet).mean() < 2  # JPEG and WebP lose a little


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_paper_is_white(mode, sheet, tmp_path):
    """Every pixel of the picture is black, and the paper is transparent."""
    picture = Image.new("L", sheet.shape[::-1]).convert(mode)
    picture.putalpha(Image.fromarray(sheet))
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read(tmp_path / "x.png"), sheet)


def test_a_transparent_color_is_white(sheet, tmp_path):
    """A palette or gray picture may declare one color transparent. Without transparency, it would be blank."""
    two = np.where(sheet > 127, 1, 0).astype(np.uint8)
    palette = Image.fromarray(two)
    palette = palette.convert("P")
    palette.putpalette([0, 0, 0] * 2)
    palette.save(tmp_path / "p.png", transparency=0)
    saved(tmp_path / "l.png", two, transparency=0)
    assert np.array_equal(read(tmp_path / "p.png"), two * 255)
    assert np.array_equal(read(tmp_path / "l.png"), two * 255)


def test_colored_ink_is_read(sheet, tmp_path):
    color = np.full((*sheet.shape, 3), 255, np.uint8)
    color[sheet > 127] = (30, 60, 200)
    fitted = fit_to_frame(read(saved(tmp_path / "x.png", color)), MNIST)
    assert np.abs(fitted.astype(int) - fit_to_frame(sheet, MNIST)).mean() < 1


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.full((5, 5), 60_000, np.uint16)
    values[2, 1:4] = 257, 5000, 30_000
    expected = 255 - np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(read(saved(tmp_path / "x.png", values)), expected)


def test_exif_orientation_is_applied(sheet, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise
    saved(tmp_path / "x.png", 255 - np.rot90(sheet).copy(), exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "x.png"), sheet)


def test_a_huge_picture_fits(tmp_path):
    small = drawing(3, 150)
    path = saved(tmp_path / "x.png", 255 - np.kron(small, np.ones((25, 25), np.uint8)), compress_level=1)
    fitted = fit_to_frame(read(str(path)), MNIST)
    assert np.abs(fitted.astype(int) - fit_to_frame(small, MNIST)).max() <= 2


def png_of_size(width, height):
    """Return a PNG file of one pixel whose header claims this size."""
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
def test_a_too_large_picture_is_refused(size, got, tmp_path):
    limit = Image.MAX_IMAGE_PIXELS
    (tmp_path / "x.png").write_bytes(png_of_size(*size))
    with warnings.catch_warnings(record=True) as caught, pytest.raises(DataError, match=rf"x\.png: .*got {got}\."):
        read(tmp_path / "x.png")
    assert not caught
    assert limit == Image.MAX_IMAGE_PIXELS


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *, extra=b""):
    """Return a PNG file of this size with black pixels and the chunks `extra`."""
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height), 1))
    return b"\x89PNG\r\n\x1a\n" + head + extra + pixels + chunk(b"IEND", b"")


def scans(count):
    """Return a progressive JPEG file of 1,000×1,000 pixels whose last scan is repeated `count` times."""
    content = io.BytesIO()
    Image.new("L", (1000, 1000), 255).save(content, "jpeg", progressive=True)
    whole = content.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * count + whole[-2:]


def qoi(width, height):
    """Return a QOI file of equal pixels, with 62 pixels per byte. Pillow decodes QOI in Python, which is slow."""
    head = b"qoif" + struct.pack(">2IBB", width, height, 3, 0)
    return head + b"\xfd" * (width * height // 62) + bytes(7) + b"\1"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) (w) file\nshowpage\n%%EOF\n"
ICON = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 8, len(png(8000, 8000)), 22) + png(8000, 8000)
HOSTILE = {
    "PostScript": (POSTSCRIPT, "a format that Pillow decodes itself, got EPS"),
    "text of 64 MiB": (png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 1))), "cannot be decoded"),
    "2,006 scans": (scans(2000), r"at most 1,000 scans of 1000×1000 pixels in a JPEG file, got 2,006"),
    "slow decoder": (qoi(2000, 2000), "slow to decode"),
    "large picture in a small icon": (ICON, "50,000,000 pixels"),
}


def test_a_video_behind_a_photo_is_not_read(sheet, tmp_path):
    """The video of a motion photo may contain the bytes that mark a scan in a JPEG file."""
    saved(tmp_path / "x.jpg", 255 - sheet)
    photo = read(tmp_path / "x.jpg")
    with (tmp_path / "x.jpg").open("ab") as file:
        file.write(b"\xff\xda" * 100_000)
    np.testing.assert_array_equal(read(tmp_path / "x.jpg"), photo)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_picture_is_refused(case, tmp_path):
    content, match = HOSTILE[case]
    (tmp_path / "x.png").write_bytes(content)
    start = time.process_time()
    with pytest.raises(DataError, match=match):
        read(tmp_path / "x.png")
    assert time.process_time() - start < 5  # it takes at most 0.5 s; the limit allows for a slow machine


@pytest.mark.skipif(os.name != "posix", reason="needs device files")
def test_a_device_file_is_refused(tmp_path):
    (tmp_path / "x.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        read(tmp_path / "x.png")


def test_a_missing_picture_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.png: .*No such file"):
        read(tmp_path / "none.png")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"read_picture: cannot read .*: expected a picture"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a digit", b"\x89PNG\r\n\x1a\n", b"\x00" * 999], ids=repr)
def test_a_file_that_is_not_a_picture_is_refused(content, tmp_path):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: expected a picture in a format that Pillow reads"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.tif", "x.webp", "x.bmp"])
def test_a_truncated_picture_is_refused(name, tmp_path):
    """A file that is cut to 10, 50 or 90% of its bytes raises DataError, which names the file."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    content = saved(tmp_path / name, noise).read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=rf"read_picture: .*{name}: expected"):
            read(tmp_path / name)


def test_a_damaged_picture_is_refused(sheet, tmp_path):
    content = bytearray(saved(tmp_path / "x.png", sheet).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: expected a complete picture"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_is_refused(value, tmp_path):
    noise = np.random.default_rng(0).integers(0, 4, (40, 40))
    blank = np.clip(value + noise, 0, 255).astype(np.uint8)
    with pytest.raises(DataError, match=r"x\.png: expected a digit, got a blank picture"):
        read(saved(tmp_path / "x.png", blank))


def test_a_picture_with_nan_is_refused(tmp_path):
    values = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(DataError, match=r"x\.tif: .*not finite"):
        read(saved(tmp_path / "x.tif", values))


def test_without_pillow_the_error_names_the_remedy(monkeypatch, sheet, tmp_path):
    path = saved(tmp_path / "x.png", sheet)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install pillow"):
        read(path)

"""`separate` finds ink, and `find_digits` finds digits, despite uneven light, lines, tables and colors."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from jaxgd.data.image import Frame, Picture, find_digits, fit_to_frame, read_picture, separate
from jaxgd.data.image.channels import gray_of
from jaxgd.data.image.paper import _extreme
from jaxgd.errors import DataError

MNIST = Frame(28, 28, 20, 20, "mass", 14.0, 14.0, 255, 0.5)
SEVEN = ((0.31, 0.35), (0.67, 0.38), (0.62, 0.5), (0.44, 0.79))
SIDE = 200


def strokes(*lines, width=12, shape=(SIDE, SIDE)):
    """Draw ink with soft edges along lines. The points (x, y) of a line are in units of the height."""
    sheet = Image.new("L", (4 * shape[1], 4 * shape[0]))
    for line in lines:
        points = [(4 * x * shape[0], 4 * y * shape[0]) for x, y in line]
        ImageDraw.Draw(sheet).line(points, fill=255, width=4 * width, joint="curve")
    return np.asarray(sheet.resize(shape[::-1], Image.Resampling.BOX)) / 255


def photo(ink, light=1.0, *, paper=220, stroke=40):
    """Return an artificial photograph of ink on paper, with noise. `light` is a brightness from 0 to 1."""
    grain = np.random.default_rng(0).normal(0, 1.5, ink.shape)
    return np.rint(np.clip(light * (paper + (stroke - paper) * ink) + grain, 0, 255)).astype(np.uint8)


def framed(gray):
    """Find the only digit in a gray picture, and fit it to MNIST's frame."""
    (digit,) = find_digits(separate(gray))
    return fit_to_frame(digit.image, MNIST).astype(int)


@pytest.fixture(scope="module")
def seven():
    return strokes(SEVEN)


@pytest.fixture(scope="module")
def clean(seven):
    return framed(photo(seven))


ALONG = np.linspace(0, 1, SIDE)
DISTANCE = np.hypot(*np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE)))


def with_line(gray, width, sides, start=0):
    """Draw lines along these sides of the picture: dark lines on light paper, light lines on dark paper."""
    level = 20 if gray[0, 0] > 128 else 235
    for side in sides:
        rotated = np.rot90(gray, side)  # a view
        rotated[start : start + width, start : SIDE - start] = level
    return gray


def on_table(gray, turn):
    """Show a noisy table around a turned sheet: a dark table for light paper, a light table for dark paper."""
    sheet = ndimage.rotate(np.pad(np.ones((SIDE - 50, SIDE - 50)), 25), turn, reshape=False, order=1)
    level = 45 if gray[0, 0] > 128 else 210
    table = level + np.random.default_rng(1).normal(0, 5, gray.shape)
    return np.rint(table + (gray - table) * sheet).astype(np.uint8)


def plain(ink, light=1.0):
    return photo(ink, light)


def board(ink, light=1.0):
    return photo(ink, light, paper=50, stroke=230)


# Each function photographs ink by `take`, which is `plain` (light paper) or `board` (dark paper).
PHOTOS = {
    "light from the left": lambda ink, take: take(ink, 1 - 0.5 * ALONG),
    "light from below": lambda ink, take: take(ink, 0.5 + 0.5 * ALONG[:, None]),
    "light from a corner": lambda ink, take: take(ink, 1 - 0.25 * (ALONG + ALONG[:, None])),
    "hard shadow": lambda ink, take: take(ink, np.where(ALONG + 0.3 * ALONG[:, None] > 0.8, 0.7, 1)),
    "soft shadow": lambda ink, take: take(ink, 0.75 - 0.25 * np.tanh(8 * (ALONG - 0.5))),
    "vignette": lambda ink, take: take(ink, 1 - 0.3 * DISTANCE**2),
    "line of 1 pixel at all sides": lambda ink, take: with_line(take(ink), 1, range(4)),
    "line of 4 pixels at one side": lambda ink, take: with_line(take(ink), 4, [1]),
    "thick lines at three sides": lambda ink, take: with_line(take(ink), 11, [0, 1, 2]),
    "lines 5 pixels inside the edge": lambda ink, take: with_line(take(ink), 3, range(4), start=5),
    "sheet on a table": lambda ink, take: on_table(take(ink), 0),
    "turned sheet on a table": lambda ink, take: on_table(take(ink), 6),
}


# The cases for dark paper. Uneven light is left out, because it dims light ink more than dark paper.
SURROUNDED = [case for case in PHOTOS if "line" in case or "table" in case]


@pytest.mark.parametrize(("case", "take"), [(case, plain) for case in PHOTOS] + [(case, board) for case in SURROUNDED])
def test_a_photograph_is_read_as_the_clean_picture(case, take, seven):
    """The mean difference is at most 2.4 of 255, up to a shift by one column: the center of mass is rounded."""
    clean, read = framed(take(seven)), framed(PHOTOS[case](seven, take))
    assert min(np.abs(np.roll(read, shift, 1) - clean).mean() for shift in (-1, 0, 1)) <= 4


@pytest.mark.parametrize("case", PHOTOS)
def test_inverting_a_photograph_does_not_give_the_clean_picture(case, seven, clean):
    """Without `separate`, the inverted photograph is blank or differs from the clean picture."""
    try:
        whole = fit_to_frame(255 - PHOTOS[case](seven, plain), MNIST)
    except DataError:
        return
    assert np.abs(whole - clean).mean() > 10


@pytest.mark.parametrize("ink", [1.0, 0.45], ids=["black", "pencil"])
def test_clean_pictures_are_only_inverted(ink, seven):
    """On even paper, `separate` inverts dark ink exactly and does not change light ink."""
    gray = photo(ink * seven)
    picture = separate(gray)
    (digit,) = find_digits(picture)
    assert picture.even
    np.testing.assert_array_equal(digit.image, 255 - gray)
    np.testing.assert_array_equal(separate(255 - gray).ink, 255 - gray)


def test_pictures_of_few_pixels_have_even_paper():
    """In an image of 28×28 pixels, a stroke may be as wide as a shadow, so the paper counts as even."""
    gray = photo(strokes(SEVEN, width=5, shape=(28, 28)), 1 - 0.5 * np.linspace(0, 1, 28))
    np.testing.assert_array_equal(separate(gray).ink, 255 - gray)


@pytest.mark.parametrize("width", [3, 7, 31])
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_maxima_and_minima_of_windows_equal_scipys(width, name):
    values = np.random.default_rng(0).integers(0, 256, (50, 37)).astype(np.uint8)
    expected = getattr(ndimage, f"{name}_filter")(values, width, mode="nearest")
    np.testing.assert_array_equal(_extreme(values, width, getattr(np, name)), expected)


# Channels.


def test_sixteen_bit_files_may_hold_values_of_8_or_12_bits(seven, clean, tmp_path):
    for bits, peak in ((8, 255), (12, 4095), (16, 65535)):
        values = np.rint(photo(seven) / 255 * peak).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{bits}.png")
        np.testing.assert_array_equal(read_picture(tmp_path / f"{bits}.png").gray, photo(seven))


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (250, 220, 40)], ids=str)
def test_transparent_paper_shows_ink_of_any_color(color, seven, clean):
    picture = Image.new("RGBA", (SIDE, SIDE), color)
    picture.putalpha(Image.fromarray(np.rint(255 * seven).astype(np.uint8)))
    assert np.abs(framed(gray_of(picture)) - clean).mean() <= 4


def test_an_opaque_sheet_with_transparent_surroundings_is_read_by_its_colors(seven, clean):
    """The alpha channel has the shape of the sheet, not of the ink."""
    picture = Image.fromarray(photo(seven)).convert("RGBA")
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[15:-15, 15:-15] = 255
    picture.putalpha(Image.fromarray(alpha))
    assert np.abs(framed(gray_of(picture)) - clean).mean() <= 6


def test_ink_and_paper_of_equal_gray_level_are_separated_by_color(seven, clean):
    red, green = np.array([200, 110, 90.0]), np.array([60, 0, 90.0])
    green[1] = (0.299 * (200 - 60) + 0.587 * 110) / 0.587
    colors = Image.fromarray(np.rint(red + seven[..., None] * (green - red)).astype(np.uint8))
    assert np.ptp(np.asarray(colors.convert("L"))) <= 1
    assert np.abs(framed(gray_of(colors)) - clean).mean() <= 6


def test_blue_ink_on_white_keeps_its_gray_level(seven):
    """The red channel replaces the gray level only if it has twice the contrast. Here it has 1.2 times."""
    blue = Image.fromarray(np.rint(255 + seven[..., None] * (np.array([30, 60, 200]) - 255)).astype(np.uint8))
    np.testing.assert_array_equal(gray_of(blue), np.asarray(blue.convert("L")))


# Digits.

ONE = ((0.9, 0.35), (0.9, 0.75))
WIDE = (SIDE, 2 * SIDE)


def found(*lines, shape=WIDE, gray=None):
    gray = photo(strokes(*lines, shape=shape)) if gray is None else gray
    return find_digits(separate(gray))


def test_digits_are_found_from_left_to_right():
    """The other digits do not change a digit's image. Its box is in pixels of the whole picture."""
    nine = tuple((x + 1.0, y) for x, y in SEVEN)
    digits = found(nine, SEVEN, ONE)
    assert [digit.box[1] for digit in digits] == sorted(digit.box[1] for digit in digits)
    alone = framed(photo(strokes(ONE, shape=WIDE)))
    assert np.abs(fit_to_frame(digits[1].image, MNIST) - alone).mean() <= 1
    top, left, bottom, right = digits[1].box
    np.testing.assert_allclose([top, bottom, left, right], np.array([0.35, 0.75, 0.87, 0.93]) * SIDE, atol=2)
    assert not any(digit.touches for digit in digits)


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ((((0.4, 0.4), (0.4, 0.55), (0.55, 0.6), (0.55, 0.75), (0.4, 0.8)), ((0.47, 0.33), (0.6, 0.33))), 1),
        ((((0.4, 0.3), (0.4, 0.55)), ((0.4, 0.62), (0.4, 0.8))), 1),
        (
            (((0.4, 0.5), (0.4, 0.75)), ((0.42, 0.4), (0.5, 0.3), (0.58, 0.3)), ((0.6, 0.36), (0.6, 0.85))),
            1,
        ),
        ((((0.4, 0.3), (0.35, 0.5), (0.53, 0.5)), ((0.58, 0.35), (0.58, 0.8))), 1),
        ((ONE, ((1.05, 0.35), (1.05, 0.75))), 2),
        ((((0.4, 0.1), (0.4, 0.4)), ((0.42, 0.6), (0.42, 0.9))), 2),
        ((ONE, ((1.05, 0.42), (1.05, 0.7)), ((1.3, 0.35), (1.3, 0.75))), 3),
    ],
    ids=[
        *("detached bar", "broken stroke", "stroke between two others", "open four"),
        *("two ones", "one digit above another", "three ones"),
    ],
)
def test_parts_of_one_digit_are_merged_and_separate_digits_stay_separate(lines, count):
    assert len(found(*lines)) == count


def test_dust_is_not_a_digit():
    gray = photo(strokes(ONE, shape=WIDE))
    gray[20:23, 20:23] = gray[180:182, 380:384] = 40
    (digit,) = found(gray=gray)
    assert digit.box[1] > 150


def test_dust_inside_the_box_is_erased(seven):
    gray = photo(seven)
    gray[130:132, 70:72] = 40
    (digit,) = found(gray=gray)
    top, left, bottom, right = digit.box
    assert top < 130 < bottom
    assert left < 70 < right
    margin = 6  # pixels between the box and the edge of the digit's image
    assert digit.image[130 - top + margin, 70 - left + margin] == 0
    assert digit.image.max() > 150


@pytest.mark.parametrize("turns", range(4))
def test_ink_that_leaves_the_picture_is_reported(turns):
    gray = np.rot90(photo(strokes(((0.5, 0.3), (0.5, 1.0)))), turns)
    (digit,) = found(gray=gray)
    assert digit.touches


def test_a_line_at_the_edge_is_kept_if_it_is_the_only_ink():
    gray = photo(strokes(((0.03, 0.1), (0.03, 0.9))))
    assert len(found(gray=gray)) == 1


@pytest.mark.parametrize("rows", [1, 12])
def test_a_picture_of_many_dots_is_refused(rows):
    """More than 1,000 shapes are refused without merging, because merging takes quadratic time."""
    gray = np.full((140, 1400), 220, np.uint8)
    for row, column in np.ndindex(rows, 130):
        gray[10 * row + 13 : 10 * row + 17, 10 * column + 43 : 10 * column + 47] = 40
    with pytest.raises(DataError, match=rf"expected at most 100 digits, got {130 * rows} separate shapes"):
        find_digits(separate(gray))


@pytest.mark.parametrize("gap", [4, 16])
def test_a_thousand_shapes_take_less_than_5_seconds(gap):
    """With gap 4, the rows merge in many rounds. With gap 16, a Python loop over all pairs would take 20 s."""
    gray = np.full((60 + 31 * (30 + gap), 60 + 32 * 46), 255, np.uint8)
    for row in range(31):
        for column in range(32):
            gray[30 + row * (30 + gap) :, 30 + column * 46 :][:30, :12] = 0
    start = time.process_time()
    if gap == 4:
        assert len(find_digits(separate(gray))) == 1
    else:
        with pytest.raises(DataError, match="at most 100 digits, got 992"):
            find_digits(separate(gray))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_has_no_digits(value):
    blank = np.full((60, 60), value, np.uint8)
    with pytest.raises(DataError, match="got a blank one"):
        find_digits(separate(blank))


@pytest.mark.slow
def test_the_largest_picture_takes_less_than_10_seconds(seven):
    """50 million pixels with uneven light are reduced to about a million. The box is in pixels of the original."""
    light = np.linspace(255, 128, 7000)[:, None].astype(np.uint8)
    gray = np.repeat(light, 7000, axis=1)
    gray[3000:5000, 3000:3400] = 20
    start = time.process_time()
    picture = separate(gray)
    (digit,) = find_digits(picture)
    assert time.process_time() - start < 10
    assert picture.factor == 7
    np.testing.assert_allclose(digit.box, [3000, 3000, 5000, 3400], atol=14)


def test_a_digit_merged_from_four_shapes_has_four_parts():
    gray = np.zeros((120, 200), np.uint8)
    for row in (10, 64):
        for column in (60, 84):
            gray[row : row + 50, column : column + 20] = 255
    (digit,) = find_digits(Picture(gray, gray, True, 1))
    assert digit.parts == 4

"""`jaxgd predict` on pictures: several digits, doubts, --single and --show."""

import re
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxgd.cli.predict import Reading, doubts_of
from jaxgd.data.idx import write_idx
from jaxgd.data.image import Digit, Picture


@pytest.fixture
def pictures(run_folder):
    """Write three pictures on light paper: one stroke, two strokes, and a stroke at the edge of the picture."""
    for name, strokes in {
        "one": [(100, 40, 110, 160)],
        "two": [(160, 40, 170, 160), (60, 50, 70, 150)],
        "edge": [(100, 40, 110, 200)],
    }.items():
        picture = Image.new("L", (240, 200), 230)
        for box in strokes:
            ImageDraw.Draw(picture).rectangle(box, fill=40)
        picture.save(f"{name}.png")


def test_several_digits_are_printed_from_left_to_right(jaxgd, pictures):
    answer = jaxgd("predict", "run", "one.png", "two.png", "edge.png")
    assert answer.status == 0
    names = [line.split("\t")[0] for line in answer.out.splitlines()]
    assert names[0] == "one.png"
    assert names[3] == "edge.png"
    boxes = [[int(x) for x in re.findall(r"\d+", name)] for name in names[1:3]]
    assert all(name.startswith("two.png[") for name in names[1:3])
    np.testing.assert_allclose(boxes, [[50, 151, 60, 71], [40, 161, 160, 171]], atol=1)
    lines = answer.err.splitlines()
    assert all(line.startswith("jaxgd predict: warning: ") for line in lines)
    assert ["one of 2 digits in the picture" in line for line in lines if "two.png" in line] == [True, True]
    assert any("edge.png: its ink touches the edge" in line for line in lines)
    assert not any("one.png: its ink" in line or "one.png: one of" in line for line in lines)


def test_single_refuses_several_digits(jaxgd, pictures):
    answer = jaxgd("predict", "run", "--single", "one.png", "two.png")
    assert answer.status == 1
    assert [line.split("\t")[0] for line in answer.out.splitlines()] == ["one.png"]
    (line,) = [line for line in answer.err.splitlines() if "two.png" in line]
    assert line == "jaxgd predict: two.png: expected one digit because of --single, got 2. Cut out one digit."


@pytest.mark.parametrize(
    ("a", "digit", "words"),
    [
        ([0.0, 0.99, 0.1], {}, []),
        ([0.05, 0.3, 0.0], {}, ["the largest activation is 0.30, which is low"]),
        ([0.9, 0.2, 0.8], {}, ["0 with 0.90 is close to 2 with 0.80"]),
        ([0.9, 0.2, 0.1], {"touches": True}, ["its ink touches the edge of the picture, so a part may be missing"]),
        ([0.9, 0.2, 0.1], {"parts": 2}, ["its ink has 2 separate parts, which may be digits of their own"]),
        ([0.9], {}, []),
        ([0.9, np.nan, 0.1], {}, ["an activation is NaN, so the network has no answer"]),
    ],
)
def test_each_doubt_about_an_answer_has_a_reason(a, digit, words):
    gray = np.zeros((9, 9), np.uint8)
    picture, found = Picture(gray, gray, True, 1), Digit(gray, (0, 0, 9, 9), False)._replace(**digit)
    assert doubts_of(Reading("x.png", gray, picture, found), np.array(a)) == words
    assert doubts_of(Reading("x[0]", gray), np.array(a)) == []


def test_outputs_with_a_nan_are_no_answer(jaxgd, pictures, monkeypatch):
    monkeypatch.setattr("jaxgd.chunks.outputs_in_chunks", lambda network, x: np.full((1, 10), np.nan))
    answer = jaxgd("predict", "run", "one.png")
    assert answer.out.split("\t")[:2] == ["one.png", "none"]
    assert "an activation is NaN" in answer.err


@pytest.mark.slow
def test_show_draws_every_digit(jaxgd, pictures):
    write_idx("some", np.eye(8, dtype=np.uint8)[None] * 255)
    answer = jaxgd("predict", "run", "two.png", "some", "--show", "seen.png")
    assert answer.status == 0, answer.err
    with Image.open("seen.png") as figure:
        width, height = figure.size
    assert 900 < width < 1100
    assert 2.5 < 3 * width / height < 4.5  # three rows


@pytest.mark.bad_input
def test_show_is_checked_before_any_work(jaxgd, pictures, monkeypatch):
    answer = jaxgd("predict", "run", "one.png", "--show", "seen.doc")
    assert (answer.status, answer.out) == (2, "")
    assert "--show must be a file whose name ends in .png, .svg or .pdf" in answer.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = jaxgd("predict", "run", "one.png", "--show", "seen.png")
    assert answer.status == 2
    assert "expected matplotlib to be installed" in answer.err
    assert "pip install -e '.[plot]'" in answer.err
    assert jaxgd("predict", "run", "one.png").status == 0

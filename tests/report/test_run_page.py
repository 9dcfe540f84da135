"""The page of a run, read as text: complete, well formed, escaped, and the same for the same facts."""

import base64
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image
from run_pages import assessed, facts, network

from jaxgd import activations
from jaxgd.network import Layer
from jaxgd.report.run_page import Examined, run_page
from jaxgd.report.run_page.chart import Curve, chart
from jaxgd.report.run_page.facts import ACTIVATIONS, MOST_WEIGHTS, why_no_drawing
from jaxgd.report.run_page.metrics import read_metrics
from jaxgd.report.run_page.pixels import ink_url, weights_url

HOSTILE = "<script>alert(1)</script>&\"'</style>]]>--><!--"


class Outline(HTMLParser):
    """The elements of a page, and its text outside scripts and styles.

    `faults` lists the end tags that do not match the innermost open element. `open` lists the elements without an end
    tag.
    """

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.elements, self.text = [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at line {self.getpos()[0]}")

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def all(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


PAGES = {
    "whole": facts(),
    "without metrics and data": facts(metrics=None, examined=None, notes=["no data"]),
    "one entry": facts(metrics={"epoch": np.zeros(1), "cost": np.ones(1), "accuracy": np.full(1, np.nan)}),
    "no mistakes": facts(examined=Examined("d", "train", np.zeros((1, 8, 8), np.uint8), assessed([3], [3]))),
    "hostile": facts(
        name=HOSTILE, command=HOSTILE, resume=HOSTILE, notes=[HOSTILE], config={"data": f"/a/{HOSTILE}", "x": HOSTILE},
        examined=facts().examined._replace(data=HOSTILE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_well_formed_and_complete(name):
    page = run_page(PAGES[name])
    outline = Outline(page)
    assert (outline.faults, outline.open) == ([], [])
    ids = outline.all("id")
    assert len(ids) == len(set(ids))
    named = [x for key in ("aria-labelledby", "aria-describedby", "for", "data-copy") for x in outline.all(key)]
    assert set(named) | {x[1:] for x in outline.all("href") if x.startswith("#")} <= set(ids)
    # The page loads nothing from elsewhere.
    addresses = [x for key in ("src", "href", "srcset", "action", "data") for x in outline.all(key)]
    assert all(x.startswith(("data:", "#")) for x in addresses)
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "@import" not in page
    assert page == run_page(PAGES[name])


def test_an_element_that_does_not_end_is_found():
    assert Outline("<p><b>x</p>").faults == ["</p> at line 1"]
    assert Outline("<p>x").open == ["p"]


def test_tags_in_a_name_are_shown_as_text():
    """The page shows tags in a name as text, and the data of its script hold no tag."""
    page = run_page(PAGES["hostile"])
    whole = Outline(run_page(PAGES["whole"]))
    assert sum(tag == "script" for tag, _ in Outline(page).elements) == sum(
        tag == "script" for tag, _ in whole.elements
    )
    assert "<script>alert" not in page
    assert Outline(page).text.count("alert(1)") > 6
    assert html.escape(HOSTILE) in page


def test_the_content_security_policy_allows_no_other_script():
    page = run_page(PAGES["whole"])
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_page_holds_the_weights_and_the_misread_images():
    page = run_page(PAGES["whole"])
    model = json.loads(page.split('id="facts">')[1].split("</script>")[0])["model"]
    for layer, want in zip(model["layers"], network(), strict=True):
        got = np.frombuffer(base64.b64decode(layer["w"]), "<f4").reshape(want.w.shape)
        np.testing.assert_array_equal(got, want.w)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(layer["b"]), "<f4"), want.b)
    images = [np.frombuffer(base64.b64decode(example["pixels"]), np.uint8) for example in model["examples"]]
    np.testing.assert_array_equal(images, PAGES["whole"].examined.images[2:].reshape(3, 64))
    text = Outline(page).text
    assert "2 → 7" in text
    assert "4 → none" in text
    assert "an output is NaN: 1." in text
    assert "40.00%" in text


def test_a_page_without_a_drawing_area_says_why():
    def wave(z):
        return np.sin(z)

    own = (Layer(*network()[0], activation=wave), network()[1])
    outline = Outline(run_page(facts(network=own)))
    assert "canvas" not in [tag for tag, _ in outline.elements]
    assert "This network uses the function wave." in outline.text
    wide = (Layer(np.zeros((1, MOST_WEIGHTS), np.float32), np.zeros(1, np.float32)),)
    assert f"has {MOST_WEIGHTS + 1:,}" in why_no_drawing(wide)
    assert why_no_drawing(network()) == ""


def test_the_script_knows_the_activations_of_the_page():
    script = (files("jaxgd.report.run_page") / "network.js").read_text()
    table = script.split("const ACTIVATIONS = {")[1].split("\n};")[0]
    assert tuple(re.findall(r"(?m)^  (\w+): z =>", table)) == ACTIVATIONS
    assert set(ACTIVATIONS) <= set(activations.ACTIVATIONS)


def test_a_large_run_has_no_matrix_and_shows_some_neurons_and_epochs():
    labels = np.arange(60) % 30
    examined = Examined("mine", "test", np.zeros((60, 8, 8), np.uint8), assessed((labels + 1) % 30, labels, 30))
    epochs = np.arange(5001.0)
    metrics = {"epoch": epochs, "cost": 1 / (1 + epochs), "accuracy": 1 - 1 / (2 + epochs)}
    page = run_page(facts(network=network((64, 200, 30)), examined=examined, metrics=metrics))
    assert '<table class="matrix">' not in page
    assert "first 100 of 200 neurons" in page
    assert "200 of 5,001 epochs" in page
    assert len(page) < 1e6
    assert "0 read as 1 (2)" in Outline(page).text


def test_the_page_follows_the_settings_of_the_run():
    """The page shows a curve for each record, the epoch of the best network, and the labels of the data files."""
    metrics = facts().metrics | {"sharpness": np.array([5.0, np.nan, 9.0]), "best_epoch": np.array([0.0, 1.0, 1.0])}
    metrics["gradient_norms"] = np.array([[1.0, 2.0], [0.5, 1.5], [0.1, 0.3]])
    metrics["widths"] = np.arange(15.0).reshape(3, 5)
    settings = {"keep": "best", "patience": 1, "epochs": 9, "labels_from": 1, "record": ["sharpness"]}
    shown = facts(metrics=metrics, config=settings)
    text = Outline(run_page(shown)).text
    for words in (
        "sharpness",
        "gradient norms",
        "epochs up to the best network",
        "first 4 of 5 values",
        "3 → 8",
        "5 → none",
        "cd" * 32,
    ):
        assert words in text
    assert (shown.epochs_done, shown.best_epoch, shown.ended) == (2, 1, True)
    assert not facts(metrics=metrics, config=settings | {"patience": 2}).ended
    never = metrics | {"best_epoch": np.full(3, -1.0)}
    assert "best network" not in Outline(run_page(facts(metrics=never, config=settings))).text
    assert [facts(metrics=never, config=settings | {"patience": n}).ended for n in (2, 3)] == [True, False]
    assert not facts(config={"epochs": 3}).ended
    assert "This run has made 2 of 3 epochs" in run_page(facts(config={"epochs": 3}))
    assert "2 of 2 epochs" not in run_page(facts())


# The curves.


def points(svg):
    (path,) = re.findall(r' d="(.*?)"', svg)
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]


@pytest.mark.parametrize(
    ("y", "accuracy", "labels"),
    [
        ([2.0, 1.0, 0.5, 0.125], False, ["0.2", "0.5", "1", "2"]),
        ([3.0, 2.9, 2.8, 2.7], False, ["2.7", "2.8", "2.9", "3"]),
        ([1.0, 0.0, -1.0, -2.0], False, ["-2", "-1", "0", "1"]),
        ([0.1, 0.9, 0.95, 0.99], True, ["50%", "80%", "90%", "95%", "98%", "99%"]),
        ([0.1, 0.9, 0.99, 1.0], True, ["90%", "99%", "100%"]),
        ([1.0, 1.0, 1.0, 1.0], True, ["100%"]),
        ([0.0, 0.0, 0.0, 0.0], True, ["0%"]),
    ],
)  # fmt: skip
def test_a_chart_places_its_curve_between_its_labels(y, accuracy, labels):
    """Each point lies between the two labeled lines next to its value."""
    svg = chart("C", np.arange(4.0), [Curve("train", np.array(y))], accuracy=accuracy)
    ticks = re.findall(r'y1="([\d.]+)" y2="[\d.]+"/><text[^>]*>([^<]*)</text>', svg)
    assert set(labels) <= {label for _, label in ticks}, ticks
    assert len(ticks) <= 10
    heights = [(float(text.rstrip("%")) / (100 if accuracy else 1), float(place)) for place, text in ticks]
    for value, height in zip(y, (height for _, height in points(svg)), strict=True):
        above, below = [h for v, h in heights if v < value - 1e-9], [h for v, h in heights if v > value + 1e-9]
        assert max(below, default=0.0) < height + 0.11
        assert min(above, default=1e9) > height - 0.11
        assert 0 <= height <= 280


def test_a_chart_leaves_out_unknown_values_and_marks_lone_points():
    y = np.array([np.nan, 1.0, np.nan, 2.0, 3.0])
    svg = chart("C", np.arange(5.0), [Curve("train", y)], mark=2)
    (first, _), (third, _), _ = points(svg)
    (place,) = re.findall(r'class="mark" x1="([\d.]+)"', svg)
    assert float(place) == pytest.approx((first + third) / 2)
    lone = chart("C", np.arange(5.0), [Curve("train", np.where(y == 2, y, np.nan))])
    assert (lone.count("<circle"), lone.count("<path")) == (1, 0)
    assert chart("C", np.arange(2.0), [Curve("train", np.full(2, np.nan))]) == ""


# The metrics.


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "empty"), ("{", "line 1 is not JSON"), ('{"epoch": 0}\n{"epoch": \n{"epoch": 2}\n', "line 2 is not JSON"),
        ("[]\n", "line 1 has no epoch"), ('{"cost": 1}\n', "line 1 has no epoch"),
        ('{"epoch": -1}\n', "line 1 has no epoch"), (f'{{"epoch": {10**400}}}\n', "line 1 has no epoch"),
    ],
)  # fmt: skip
def test_an_error_names_the_damaged_line_of_the_metrics(tmp_path, content, match):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        read_metrics(path)


def test_metrics_keep_columns_of_numbers_and_leave_out_an_unfinished_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"epoch": 0, "cost": 1.5, "norms": [1.0, 2.0], "word": "x", "huge": 10**400},
        {"epoch": 1, "cost": None, "norms": None, "late": 7},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 2, "co')
    got = read_metrics(path)
    assert list(got) == ["epoch", "cost", "norms", "late"]
    np.testing.assert_array_equal(got["late"], [np.nan, 7])
    np.testing.assert_array_equal(got["cost"], [1.5, np.nan])
    np.testing.assert_array_equal(got["norms"], [[1.0, 2.0], [np.nan, np.nan]])


# The images and colors.


def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def test_pixels_encode_ink_and_weights():
    image = np.array([[0, 255], [7, 128]], np.uint8)
    np.testing.assert_array_equal(pixels(ink_url(image))[..., 1], image)
    got = pixels(weights_url(np.array([[1.0, -0.5], [0.0, -9.0]]), 1.0))
    np.testing.assert_array_equal(got[..., 3], [[255, 128], [0, 255]])
    assert got[0, 0, 0] > got[0, 0, 2]
    assert got[0, 1, 0] < got[0, 1, 2]


def luminance(rgb):
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a, b):
    """Return the contrast ratio of two colors, from 1 to 21, as the WCAG defines it."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes():
    style = (files("jaxgd.report.run_page") / "page.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]:
        colors = {
            k: [int(x[i : i + 2], 16) / 255 for i in (0, 2, 4)] for k, x in re.findall(r"--([\w-]+): #(\w{6})", block)
        }
        mixed = {k: [int(x) / 255 for x in v.split()] for k, v in re.findall(r"--(right|wrong): ([\d ]+);", block)}
        yield colors | mixed


@pytest.mark.parametrize("theme", list(themes()), ids=["light", "dark"])
def test_the_colors_have_contrast(theme):
    """Level AA of the WCAG requires a contrast of 4.5 for text and of 3 for lines."""
    for text, paper in (
        ("ink", "paper"),
        ("soft", "paper"),
        ("ink", "raised"),
        ("soft", "raised"),
        ("accent", "paper"),
    ):
        assert contrast(theme[text], theme[paper]) >= 4.5, (text, paper)
    for line in ("train", "validation", "test", "focus", "accent"):
        assert contrast(theme[line], theme["paper"]) >= 3, line
    for cell, share in (("right", 0.5), ("wrong", 0.6)):
        mixed = [share * c + (1 - share) * p for c, p in zip(theme[cell], theme["paper"], strict=True)]
        assert contrast(theme["ink"], mixed) >= 4.5, cell

"""In a browser, the page of a run computes as JAX does, and reads digits drawn by mouse, finger and keyboard."""

import base64
import contextlib
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from browser import Browser
from run_pages import DIGITS, facts

from jaxgd import feedforward, load_dataset
from jaxgd.cli import main
from jaxgd.data import load_idx
from jaxgd.data.image import Frame, fit_to_frame
from jaxgd.network import Layer
from jaxgd.report.run_page import run_page
from jaxgd.report.run_page.facts import ACTIVATIONS
from jaxgd.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser):
    return browser.page()


def made(folder, *argv):
    """Train with the command, write the page of the run, and return the run's folder."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        assert main(["train", "--run-dir", str(folder), *argv]) == 0, printed.getvalue()
        assert main(["report", str(folder)]) == 0, printed.getvalue()
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return made(tmp_path_factory.mktemp("page") / "digits", "--epochs", "20", "--keep", "best")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory, genuine_mnist):
    return made(tmp_path_factory.mktemp("page") / "mnist", "--data", str(genuine_mnist), "--epochs", "3")


@pytest.fixture(params=["digits", "mnist"])
def run(request):
    return request.getfixturevalue(request.param)


def images_of(run):
    data = json.loads((run / "config.json").read_text())["data"]
    return (load_dataset(data) if data == "digits" else load_idx(data)).test.images[:200]


def text(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def draw(page, digit, send):
    """Draw a digit. Call `send` for each stroke with its points, in pixels of the window."""
    left, top, width, height = page.box("#canvas")
    for stroke in DIGITS[digit]:
        send([(left + x * width, top + y * height) for x, y in stroke])
    page.settle()


def answers(page, images):
    return np.array(
        page.evaluate(
            f"{json.dumps(images.reshape(len(images), -1).tolist())}"
            ".map(image => Array.from(feedforward(decoded(facts.model.layers), image)))"
        )
    )


def test_the_page_computes_as_jax_does_and_loads_nothing(page, run):
    page.open(run / "report.html")
    images, folder = images_of(run), RunFolder.open(run)
    x = jnp.asarray(images.reshape(len(images), -1) / 255, jnp.float32)
    # JAX computes in float32 and the page in float64, so sums of up to 784 terms differ by about 1e-6.
    np.testing.assert_allclose(answers(page, images), feedforward(folder.load_network(), x), rtol=0, atol=1e-5)
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in page.requests) == 1
    assert (run / "report.html").stat().st_size < 1e6


def test_a_wrong_weight_would_be_noticed(page, digits, tmp_path):
    """Exchange two weights in a copy of the page, and require that the answers differ by more than the tolerance."""
    images, content = images_of(digits), (digits / "report.html").read_text()
    w = json.loads(content.split('id="facts">')[1].split("</script>")[0])["model"]["layers"][1]["w"]
    raw = bytearray(base64.b64decode(w))
    raw[:4], raw[4:8] = raw[4:8], raw[:4]
    copy = tmp_path / "copy.html"
    copy.write_text(content.replace(w, base64.b64encode(raw).decode()))
    page.open(digits / "report.html")
    right = answers(page, images)
    page.open(copy)
    assert np.abs(answers(page, images) - right).max() > 1e-3


def reference(z, activation):
    """Return the activation of z, computed in NumPy by its definition."""
    if activation == "softmax":
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    return {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh, "relu": lambda z: z * (z > 0)}[activation](z)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_equals_its_definition(page, digits, tmp_path, activation):
    rng = np.random.default_rng(5)
    layers = [(rng.normal(size=s), rng.normal(size=s[0])) for s in ((12, 64), (10, 12))]
    layers = [(w.astype(np.float32), b.astype(np.float32)) for w, b in layers]
    network = (Layer(*layers[0]), Layer(*layers[1], activation=activation))
    path = tmp_path / "page.html"
    path.write_text(run_page(facts(network=network)))
    page.open(path)
    images = images_of(digits)
    a = images.reshape(len(images), -1) / 255
    for (w, b), name in zip(layers, ("sigmoid", activation), strict=True):
        a = reference(a @ w.astype(float).T + b, name)
    np.testing.assert_allclose(answers(page, images), a, atol=1e-12)
    assert page.errors == []


FRAMES = {
    "mnist": Frame(28, 28, 20, 20, "mass", 14.0, 14.0, 255, 0.5),
    "digits": Frame(8, 8, 8, 7, "box", 3.5, 3.5, 255, 1.0),
    "wide": Frame(20, 30, 15, 11, "mass", 9.5, 15.0, 240, 0.5),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_the_page_frames_drawings_as_fit_to_frame_does(page, digits, frame):
    """The input of the network equals the image of fit_to_frame, up to one gray level."""
    page.open(digits / "report.html")
    rng = np.random.default_rng(1)
    for _ in range(60):
        size = rng.choice([1.0, 0.5, 0.2])
        strokes = [
            {"r": float(rng.uniform(3, 25)), "p": (size * rng.uniform(20, 250, (rng.integers(1, 9), 2))).tolist()}
            for _ in range(rng.integers(1, 4))
        ]
        if rng.random() < 0.3:
            strokes.append({"r": 2.0, "p": [[270.0, 260.0]]})  # a speck, which is left out next to a large drawing
        raw, seen = page.evaluate(
            f"""(() => {{ const image = paper(270, 280);
            const draw = ({{r, p}}) => p.forEach((point, i) => drawLine(image, p[Math.max(i - 1, 0)], point, r));
            {json.dumps(strokes)}.forEach(draw);
            return [Array.from(image.gray), Array.from(fitToFrame(image, {json.dumps(frame._asdict())}).gray)]; }})()"""
        )
        image = np.array(raw, np.uint8).reshape(270, 280)
        want = fit_to_frame(image, frame)
        assert np.abs(np.array(seen).reshape(want.shape) - want.astype(int)).max() <= 1


@pytest.mark.parametrize("digit", DIGITS)
@pytest.mark.parametrize("pointer", ["mouse", "touch"])
def test_a_drawn_digit_is_read(page, mnist, digit, pointer):
    touch = pointer == "touch"
    page.open(mnist / "report.html", width=390 if touch else 1366, height=844 if touch else 740, touch=touch)
    draw(page, digit, getattr(page, pointer))
    assert text(page, "#digit") == str(digit)
    assert text(page, "#answer").startswith(f"The network reads {digit} (")
    assert text(page, "#bars .strongest th") == str(digit)
    page.wait_for(f"document.getElementById('status').textContent.startsWith('The network reads {digit} (')")
    assert page.errors == []


@pytest.mark.parametrize("digit", [0, 2, 3, 5, 7, 8])
def test_a_digit_is_read_by_the_small_network(page, digits, digit):
    """The network trained on 8×8 images reads these six of the ten digits in `DIGITS`."""
    page.open(digits / "report.html")
    draw(page, digit, page.mouse)
    assert text(page, "#digit") == str(digit)


def test_the_keyboard_draws_undoes_and_clears(page, mnist):
    """Draw a 7 with the keys: a line to the right, then a steep line down to the left.

    In every second step of the steep line, two arrow keys are held at once.
    """
    page.open(mnist / "report.html")
    for _ in range(60):
        page.hold("Tab")
        if page.evaluate("document.activeElement.id") == "canvas":
            break
    assert page.evaluate("document.activeElement.id") == "canvas"
    for key in ["ArrowLeft"] * 6 + ["ArrowUp"] * 8:
        page.hold(key)
    assert text(page, "#digit") == "–"
    page.hold(" ")
    for _ in range(12):
        page.hold("ArrowRight")
    for _ in range(7):
        page.hold("ArrowDown", "ArrowLeft")
        page.hold("ArrowDown")
    page.hold(" ")
    page.settle()
    assert text(page, "#digit") == "7"
    before = page.evaluate("scrollY")
    page.hold("ArrowLeft")  # the pen is up: nothing is drawn, and the page does not scroll
    page.hold(" ")
    page.hold("z", ctrl=True)  # undo the dot
    page.settle()
    assert (text(page, "#digit"), page.evaluate("scrollY")) == ("7", before)
    page.hold("Escape")
    page.settle()
    assert text(page, "#digit") == "–"
    page.hold("Backspace")  # undo the clearing
    page.settle()
    assert text(page, "#digit") == "7"
    page.hold("Backspace")
    page.settle()
    assert text(page, "#digit") == "–"
    assert page.evaluate("document.getElementById('undo').disabled")
    page.hold("Tab")
    assert page.evaluate("document.activeElement.id") != "canvas"
    assert page.errors == []


def test_a_button_undoes_strokes_and_a_misread_image_is_shown(page, digits):
    page.open(digits / "report.html")
    draw(page, 4, page.mouse)  # two strokes
    whole = text(page, "#answer")
    page.evaluate("document.getElementById('undo').click()")
    page.settle()
    assert text(page, "#answer") != whole
    page.evaluate("document.getElementById('undo').click()")
    page.settle()
    assert text(page, "#digit") == "–"
    draw(page, 4, page.mouse)
    page.evaluate("document.querySelector('[data-example]').click()")
    page.settle()
    label, answer = text(page, "[data-example] [aria-hidden]").split(" → ")
    assert text(page, "#digit") == answer
    assert text(page, "#answer").endswith(f"The label is {label}.")
    seen = page.evaluate("Array.from(document.getElementById('input').getContext('2d').getImageData(0, 0, 8, 8).data)")
    pixels = page.evaluate("Array.from(bytes(facts.model.examples[0].pixels))")
    assert seen[3::4] == pixels
    page.evaluate("document.getElementById('undo').click()")
    page.settle()
    assert text(page, "#answer") == whole


def test_the_slider_shows_the_values_of_an_epoch(page, digits):
    page.open(digits / "report.html")
    rows = [json.loads(line) for line in (digits / "metrics.jsonl").read_text().splitlines()]
    page.evaluate("document.getElementById('epoch').focus()")
    best = rows[-1]["best_epoch"]
    for at in range(best, best - 3, -1):
        assert text(page, "#epoch-number") == str(rows[at]["epoch"])
        assert text(page, "[data-column=test_cost]") == f"{rows[at]['test_cost']:.4g}"
        page.send(
            "Input.dispatchKeyEvent", type="rawKeyDown", key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37
        )
        page.settle()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1366])
def test_no_part_of_the_page_is_wider_than_the_window(page, run, width, scheme):
    page.open(run / "report.html", width=width, height=800, scheme=scheme, touch=width < 1000)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.settle()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    # Level AAA of the WCAG requires buttons to be at least 44 pixels high.
    heights = page.evaluate(
        "Array.from(document.querySelectorAll('button:not([hidden])')).map(b => b.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44


def test_the_page_has_no_animation_if_the_reader_prefers_none(page, digits):
    page.open(digits / "report.html")
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    style = "getComputedStyle(document.querySelector('.bar span')).transitionDuration"
    assert page.evaluate(style) == "0s"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_an_error_and_a_request_would_be_noticed(page, digits, tmp_path):
    """The policy of the page blocks an added script and an added image, and the browser reports both.

    On a page without a policy, the browser reports the error of the script.
    """
    copy = tmp_path / "copy.html"
    spoiled = '<script>missing()</script><img src="http://127.0.0.1:9/x.png">'
    copy.write_text((digits / "report.html").read_text().replace("</body>", f"{spoiled}</body>"))
    page.open(copy)
    assert sum("Content Security Policy" in error for error in page.errors) == 2
    plain = tmp_path / "plain.html"
    plain.write_text("<script>missing()</script>")
    page.open(plain)
    assert any("missing is not defined" in error for error in page.errors)

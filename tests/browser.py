"""Drive a headless Chromium through the pipes of its debugging protocol, without a browser package."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = f"no browser in PATH: the tests of the page need one of {', '.join(NAMES)}"
# The browser expects its pipes at file descriptors 3 and 4. An extra process moves them there. A fork of the test
# process could hang, because JAX runs threads in it.
_START = """
import os, sys
for fd, target in zip(map(int, sys.argv[1:3]), (3, 4)):
    os.dup2(fd, target)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_SECONDS = 60


def executable():
    """Return the path of a browser, or skip the test. pytest's summary reports the skip."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


class Page:
    """A page of the browser. `errors` lists the exceptions and console messages since `open`, `requests` the URLs."""

    def __init__(self, browser, session):
        self._browser, self._session = browser, session
        self.errors, self.requests = [], []

    def send(self, method, **params):
        """Send a command of the protocol, and return its result."""
        return self._browser.send(method, params, self._session)

    def open(self, path, *, width=1366, height=740, scheme="light", touch=False):
        """Open a file in a window of this size, and wait until it is drawn."""
        self.errors.clear()
        self.requests.clear()
        mobile = {"width": width, "height": height, "deviceScaleFactor": 2 if touch else 1, "mobile": touch}
        self.send("Emulation.setDeviceMetricsOverride", **mobile)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url=Path(path).absolute().as_uri())
        self.wait_for("document.readyState === 'complete'")
        self.settle()

    def evaluate(self, expression):
        """Return the value of an expression of JavaScript, awaited if it is a promise."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(json.dumps(done["exceptionDetails"])[:2000])
        return done["result"].get("value")

    def wait_for(self, expression):
        """Wait until an expression is true."""
        end = time.monotonic() + _SECONDS
        while True:
            # While a page is being replaced, JavaScript has no context and the command fails.
            with contextlib.suppress(RuntimeError):
                if self.evaluate(expression):
                    return
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def settle(self):
        """Wait until the page has drawn two frames."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def box(self, selector):
        """Scroll an element into view, and return its left, top, width and height in the window."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        return self.evaluate(f"(b => [b.left, b.top, b.width, b.height])({found}.getBoundingClientRect())")

    def mouse(self, points):
        """Press the mouse at the first point, move through the others, and release it."""
        (x, y), *others = points
        button = {"button": "left", "buttons": 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **button)
        for x, y in others:
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **button)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **button)

    def touch(self, points):
        """Touch the screen at the first point, move through the others, and lift the finger."""
        for kind, (x, y) in zip(("touchStart", *["touchMove"] * (len(points) - 1)), points, strict=True):
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def hold(self, *keys, ctrl=False):
        """Press keys together, and release them."""
        names = {" ": "Space"}
        codes = {"z": 90, " ": 32, "Tab": 9, "Enter": 13}
        for kind in ("rawKeyDown", "keyUp"):
            for key in keys:
                about = {"key": key, "code": names.get(key, key), "windowsVirtualKeyCode": codes.get(key, 0)}
                self.send("Input.dispatchKeyEvent", type=kind, modifiers=2 * ctrl, **about)

    def picture(self, path, *, whole=False):
        """Write a picture of the window, or of the whole page."""
        options = {"captureBeyondViewport": whole}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        Path(path).write_bytes(base64.b64decode(self.send("Page.captureScreenshot", **options)["data"]))


class Browser:
    """A browser without a window. Use it in a `with` block."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe"),
            f"--user-data-dir={self._folder.name}",
        )
        command = [sys.executable, "-c", _START, str(their_in), str(their_out), executable(), *options]
        self._process = subprocess.Popen(
            command, pass_fds=(their_in, their_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        self._waiting, self._number, self._pages = b"", 0, {}
        return self

    def __exit__(self, *error):
        with contextlib.suppress(Exception):
            self.send("Browser.close", {})
        for fd in (self._in, self._out):
            os.close(fd)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def page(self):
        """Return a new page."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        return page

    def send(self, method, params, session=None):
        """Send a command, and return its result. Events that arrive before the result are stored in their page."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._out, content) :]
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                return reply["result"]
            self._note(reply)

    def _read(self):
        while b"\0" not in self._waiting:
            if not select.select([self._in], [], [], _SECONDS)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._in, 2**20)
            if not part:
                raise EOFError("the browser has ended")
            self._waiting += part
        message, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        page = self._pages.get(event.get("sessionId"))
        method, params = event.get("method"), event.get("params", {})
        if page is None:
            return
        if method == "Network.requestWillBeSent":
            page.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            page.errors.append(details.get("exception", details).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled":
            page.errors.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded":
            page.errors.append(params["entry"]["text"])

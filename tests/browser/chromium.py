"""Drives a headless Chromium over its debugging pipe: no driver, no port, nothing beyond the standard library.

The protocol (https://chromedevtools.github.io/devtools-protocol/) is JSON, one message per NUL-terminated string: what
is written to the browser's descriptor 3 is a command, what it writes to descriptor 4 an answer or an event.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--remote-debugging-pipe",
    # No network at all: every name but this machine's own address leads nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# The browser wants its pipe at descriptors 3 and 4; a child process gets it there without code between fork and exec.
_LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class BrowserError(AssertionError):
    """The browser, or a script in the page, did not do what it was told to."""


class Browser:
    """One headless Chromium with an empty profile of its own; ended by `close`."""

    def __init__(self) -> None:
        found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
        if not found:
            raise BrowserError("no Chromium: install one (Debian: apt-get install chromium) or name it in CHROMIUM")
        self._profile = tempfile.TemporaryDirectory(prefix="curlgrad-browser-", ignore_cleanup_errors=True)
        command_out, self._write = os.pipe()
        self._read, answer_in = os.pipe()
        flags = (*_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(command_out), str(answer_in), found, *flags],
            pass_fds=(command_out, answer_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_out)
        os.close(answer_in)
        self._buffer = b""
        self._next = 0
        self.events: list[Json] = []

    def close(self) -> None:
        try:
            self.send("Browser.close")
        except (BrowserError, OSError):
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def page(self, width: int = 1280, height: int = 900) -> Page:
        """A new page in a context of its own: no cache, storage or history of other pages."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, context, session, width, height)

    def send(self, method: str, session: str | None = None, timeout: float = 30, **params: Any) -> Json:
        """The result of a command. Events that arrive meanwhile are kept. Raises BrowserError."""
        self._next += 1
        message: Json = {"id": self._next, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        end = time.monotonic() + timeout
        while True:
            answer = self._receive(end - time.monotonic())
            if answer is None:
                raise BrowserError(f"{method}: no answer in {timeout} s")
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: Json = answer["result"]
                return result

    def pump(self, seconds: float) -> None:
        """Take in events for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._receive(left)

    def _receive(self, timeout: float) -> Json | None:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(timeout, 0))[0]:
                return None
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise BrowserError("the browser has ended")
            self._buffer += chunk
        data, _, self._buffer = self._buffer.partition(b"\0")
        message: Json = json.loads(data)
        if "id" not in message:
            self.events.append(message)
        return message


class Page:
    """One page: open addresses, run scripts, press keys, and look at what it asked for and what it complained about."""

    def __init__(self, browser: Browser, context: str, session: str, width: int, height: int) -> None:
        self._browser = browser
        self._context = context
        self._session = session
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def send(self, method: str, **params: Any) -> Json:
        return self._browser.send(method, self._session, **params)

    def close(self) -> None:
        self._browser.send("Target.disposeBrowserContext", browserContextId=self._context)

    def resize(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, on: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited. Raises BrowserError with what the script threw."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(f"{script}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def wait(self, condition: str, timeout: float = 20) -> None:
        """Until the JavaScript expression is truthy, looked at every 10 ms. Raises BrowserError past `timeout` seconds.

        What the expression throws counts as not yet: the page it speaks of may still be on its way.
        """
        end = time.monotonic() + timeout
        while not self.run(f"(() => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }})()"):
            if time.monotonic() > end:
                raise BrowserError(f"not within {timeout} s: {condition}")
            self._browser.pump(0.01)

    def seconds(self, action: Callable[[], None], condition: str, timeout: float = 20) -> float:
        """How long after the beginning of `action` the condition holds and the page has been painted."""
        start = time.monotonic()
        action()
        self.wait(condition, timeout)
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        return time.monotonic() - start

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """One key, down and up, as the DOM names it (`Enter` with its code 13, `ArrowDown` with 40)."""
        how = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **how, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **how)

    def click(self, selector: str) -> None:
        """A mouse click in the middle of the first element that matches, scrolled into view."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        how = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", **how)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **how)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def events(self, *methods: str) -> list[Json]:
        """The parameters of this page's events of these kinds so far, oldest first."""
        self._browser.pump(0.05)
        return [
            e["params"] for e in self._browser.events if e.get("sessionId") == self._session and e["method"] in methods
        ]

    def requests(self) -> list[Json]:
        """The requests that the page has sent: `url`, `method`, `headers`, `postData`."""
        return [event["request"] for event in self.events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console and the log, exceptions that nobody caught, and requests that failed."""
        found = [
            " ".join(str(arg.get("value", arg.get("description", ""))) for arg in event["args"])
            for event in self.events("Runtime.consoleAPICalled")
            if event["type"] in {"error", "warning", "assert"}
        ]
        found += [
            e["exceptionDetails"].get("exception", {}).get("description", "")
            for e in self.events("Runtime.exceptionThrown")
        ]
        found += [
            f"{e['entry']['text']} {e['entry'].get('url', '')}"
            for e in self.events("Log.entryAdded")
            if e["entry"]["level"] in {"error", "warning"}
        ]
        found += [e["errorText"] for e in self.events("Network.loadingFailed") if not e.get("canceled")]
        return found

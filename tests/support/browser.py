"""A headless Chromium that a test drives through its debugging pipe: no driver and no package is needed."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Tab:
    """One page of a browser.

    Attributes:
        asked: addresses of all that the page has asked for, `data:` and `blob:` left out.
        said: errors that scripts have raised or written to the console.
    """

    def __init__(self, ears: int, mouth: int) -> None:
        self._ears, self._mouth, self._number, self._rest = ears, mouth, 0, b""
        self._session: str | None = None
        self.asked: list[str] = []
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict:
        """Calls a method of the DevTools protocol and gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._mouth, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            self._rest += os.read(self._ears, 1 << 20)
        one, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(one)
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent" | "Network.webSocketCreated":
                url = params.get("url") or params["request"]["url"]
                if not url.startswith(("data:", "blob:", "about:")):
                    self.asked.append(url)
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.said.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                self.said.append(" ".join(str(a.get("value", a.get("description", ""))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return message

    def size(self, width: int, height: int = 900) -> None:
        """The window's, in CSS pixels; narrow ones are a telephone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """The value of an expression on the page, awaited where it is a promise."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"].get("exception", {}).get("description")
        return done["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until an expression is true."""
        until = time.monotonic() + seconds
        while not self.js(f"!!({condition})"):
            assert time.monotonic() < until, (
                f"{condition} hasn't come true: {self.js('document.body.innerText')[:2000]}"
            )
            time.sleep(0.1)

    def type(self, selector: str, text: str) -> None:
        """Puts a text into a field as a person would."""
        self.js(f"(e => (e.focus(), e.select && e.select()))(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def click(self, text: str, selector: str = "button") -> None:
        """Clicks on the visible element with this text."""
        self.js(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            f".find(e => e.offsetParent && e.innerText.trim().startsWith({json.dumps(text)})).click()"
        )

    def upload(self, selector: str, *files: Path) -> None:
        """Gives files to an input of a page."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def picture(self, file: Path, whole: bool = True) -> None:
        """What the page looks like, as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def sideways(self) -> int:
        """Pixels that the page is wider than its window."""
        return self.js("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser whose profile lies in `folder`; raises FileNotFoundError where there is no chromium."""
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("no chromium")
    ours, theirs = os.pipe(), os.pipe()  # we read from the first, they from the second
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
        "--disable-background-networking", "--disable-component-update", "--no-first-run", "--hide-scrollbars",
        f"--user-data-dir={folder}",
    ]  # fmt: skip

    def as_three_and_four() -> None:
        os.dup2(theirs[0], 103)
        os.dup2(ours[1], 104)
        os.dup2(103, 3)
        os.dup2(104, 4)

    process = subprocess.Popen(
        [program, *options, "about:blank"], preexec_fn=as_three_and_four, pass_fds=(3, 4),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs[0])
    os.close(ours[1])
    try:
        yield Tab(ours[0], theirs[1])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        os.close(ours[0])
        os.close(theirs[1])

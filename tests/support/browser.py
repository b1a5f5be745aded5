"""A headless Chromium that shows the built site, driven by its DevTools protocol over a pipe, and the site's server."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Browser", "browser", "served"]

KEYS = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35}
CONTROL = 2  # Of the modifiers of a key.


class Browser:
    """One page."""

    def __init__(self, to_browser: BinaryIO, from_browser: BufferedReader) -> None:
        self._out = to_browser
        self._in = from_browser
        self._number = 0
        self._pending = b""
        self.requested: list[str] = []
        """The addresses that the page and its workers have asked for."""
        self.complaints: list[str] = []
        """Exceptions and errors on the console."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol for the page."""
        return self._call(method, self._session, **parameters)

    def show(
        self, address: str, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "reduce"
    ) -> None:
        """Show a page in a window of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=address)
        self.until("document.readyState == 'complete'")

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        waiting = f"""new Promise((resolve, reject) => {{
            const look = () => {{ if ({condition}) resolve(true); else setTimeout(look, 20); }};
            look();
        }})"""
        assert self.value(waiting), condition

    def press(self, key: str, control: bool = False) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown" if key not in ("Enter",) or control else "keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=KEYS[key],
                modifiers=CONTROL if control else 0,
                **({"text": "\r"} if kind == "keyDown" else {}),
            )

    def click(self, selector: str) -> None:
        """Click in the middle of an element, by the mouse."""
        at = self.value(f"""(() => {{ const e = document.querySelector({selector!r});
            e.scrollIntoView({{ block: "center" }}); const r = e.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2]; }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        """Save what the page shows, in full length."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            data = self._in.read1(1 << 20)
            assert data, "the browser has ended"
            self._pending += data
        text, _, self._pending = self._pending.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def _note(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Browser]:
    """Start Chromium with its data in `folder`. It finds no host but this one."""
    (theirs_in, to_browser), (from_browser, theirs_out) = os.pipe(), os.pipe()
    options = [
        "--headless=new",
        "--no-sandbox",  # Root has no other way.
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder}",
        "--remote-debugging-pipe",
    ]
    command = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', program, *options]
    with subprocess.Popen(command, pass_fds=[theirs_in, theirs_out], stderr=subprocess.DEVNULL) as process:
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            with os.fdopen(to_browser, "wb", 0) as out, os.fdopen(from_browser, "rb") as back:
                yield Browser(out, back)
            process.wait(20)  # Chromium ends when the pipe does.
        finally:
            process.kill()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback address, and yield its address."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            (port,) = re.findall(r" port (\d+) ", server.stdout.readline())
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.kill()

"""A real Chromium without a window, driven over its own pipe, and pictures of what it shows.

Only this machine can be reached from it. Pictures go to build/screenshots, or to where
SOCKMGR_SCREENSHOTS says.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.e2e.apps import ROOT
from tests.e2e.harness import end_marked, marked_environment, wait_for

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--disable-breakpad", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
LAUNCHER = (
    "import os, sys; [os.dup2(int(fd), to) for fd, to in zip(sys.argv[1:3], (3, 4))]; "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
TIMEOUT = 30.0


def screenshots() -> Path:
    """Return the directory for pictures."""
    found = Path(os.environ.get("SOCKMGR_SCREENSHOTS") or ROOT / "build" / "screenshots")
    found.mkdir(parents=True, exist_ok=True)
    return found


class Browser:
    """One Chromium with one page. Its protocol is NUL-ended JSON on descriptors 3 and 4."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._env = marked_environment({"HOME": str(directory)})
        self._ids = itertools.count(1)
        self._read = b""
        self._events: deque[dict[str, Any]] = deque(maxlen=1000)
        self._session = ""

    def __enter__(self) -> Self:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        assert program, "Chromium is not installed: .ci/setup does that"
        for_it, self._write_fd = os.pipe()
        self._read_fd, by_it = os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (for_it, by_it)]
        arguments = [*FLAGS, f"--user-data-dir={self._directory / 'profile'}", "about:blank"]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, *map(str, theirs), program, *arguments],
                env=self._env, pass_fds=(*theirs, 3, 4), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        finally:
            for fd in (for_it, by_it, *theirs):
                os.close(fd)
        try:
            page = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
            self._session = attached["sessionId"]
            self._call("Page.enable")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @contextlib.contextmanager
    def behind_another(self) -> Iterator[None]:
        """Have another tab in front of the page, so that nobody sees it."""
        page = self._call("Target.getTargetInfo")["targetInfo"]["targetId"]
        other = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._call("Target.activateTarget", targetId=other)
        wait_for(lambda: self.evaluate("document.hidden"), "the page to be hidden")
        yield
        self._call("Target.activateTarget", targetId=page)
        self._call("Target.closeTarget", targetId=other)

    def resize(self, width: int, height: int = 800, *, dark: bool = False) -> None:
        """Have a window of this size, of somebody who likes it `dark`."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to a page."""
        answer = self._call("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression of JavaScript, None if a page is just being left."""
        try:
            answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        except ProtocolError:
            return None
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """What the page says."""
        return str(self.evaluate("document.body ? document.body.innerText : ''") or "")

    def wait_text(self, part: str) -> str:
        """Wait until the page says `part`, by itself; return all it says."""
        try:
            return wait_for(
                lambda: text if part in (text := self.text) else "",
                f"{part!r} in the browser",
                timeout=TIMEOUT,
            )
        except TimeoutError as error:
            address, html = map(self.evaluate, ("location.href", "document.body.outerHTML"))
            error.add_note(f"{address} shows:\n{html}")
            raise

    def screenshot(self, name: str) -> Path:
        """Keep a picture of what is seen."""
        path = screenshots() / f"{name}.png"
        picture = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))
        return path

    # Private

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._ids)
        call: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._write_fd, json.dumps(call).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            pass
        if "error" in answer:
            raise ProtocolError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while b"\0" not in self._read:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._read_fd], [], [], left)[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._read_fd, 1 << 20)
            if not data:
                raise AssertionError(f"Chromium ended with {self._process.wait()}")
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _close(self) -> None:
        with contextlib.suppress(OSError, ProtocolError, AssertionError):
            self._session = ""
            self._call("Browser.close")
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        end_marked(self._env)
        os.close(self._read_fd)
        os.close(self._write_fd)


class ProtocolError(Exception):
    """What was called for could not be done."""

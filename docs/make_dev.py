"""Write the pictures of docs/dev.md: a real session in a terminal, and a real error page.

`python -m docs.make_dev`, with port 8000 free and Chromium installed. What is shown was not typed
by hand: somebody edits a small shop, and breaks it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.e2e.browser import Browser
from tests.e2e.dev import Dev

HERE = Path(__file__).parent
COLUMNS = 88
URL = "http://127.0.0.1:8000/"
CONFIG = """\
[listen]
http = "tcp://127.0.0.1:8000"

[service.web]
command = ["uvicorn", "--log-level", "warning", "shop.main:app"]
"""
MAIN = """\
from shop.views import index


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": index().encode()})
"""
VIEWS = """\
PRICES = [12, 30, 18]


def mean(prices):
    return sum(prices) / len(prices)


print("the mean price is", mean(PRICES))


def index():
    return "Hello!"
"""


class Shop:
    """A project, and its editor."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._package = directory / "shop"
        self._package.mkdir()
        (directory / "sockmgr.toml").write_text(CONFIG)
        (self._package / "main.py").write_text(MAIN)
        self.save()

    def save(self, **changes: str) -> None:
        """Save the views with some `old=new` in them."""
        text = VIEWS
        for old, new in changes.items():
            text = text.replace(old, new)
        (self._package / "views.py").write_text(text)


@contextmanager
def developing() -> Iterator[tuple[Shop, Dev]]:
    """A shop, and a dev of it that is still to be started."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-docs-") as name:
        directory = Path(name, "shop")
        directory.mkdir()
        control = Path(name, "control.sock")
        yield Shop(directory), Dev(directory, columns=COLUMNS, control=control)


def session() -> str:
    """Return what a terminal shows of some edits, with its colours."""
    with developing() as (shop, dev), dev:
        dev.see("^keys")
        shop.save(Hello="Welcome")
        dev.see("^web 1 → 2")
        shop.save(**{"[12, 30, 18]": "[]"})
        dev.see("^web 3 failed")
        shop.save(**{"12": "15"})
        dev.see("^web 2 → 4")
        dev.press("s")
        dev.see("^  web@4.1")
        dev.press("q")
        dev.wait()
        return dev.raw.replace("\r\n", "\n")


def picture(output: str) -> str:
    """Return a picture of a terminal, which loads nothing from elsewhere."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            file=nowhere, record=True, width=COLUMNS, force_terminal=True, color_system="truecolor"
        )
        console.print(Text.from_ansi(f"\x1b[1m$ sockmgr dev\x1b[0m\n{output}"))
    drawn = console.export_svg(title="sockmgr dev", theme=MONOKAI, unique_id="dev")
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


def error_page(path: Path) -> None:
    """Write what a browser shows while nothing has served yet."""
    with developing() as (shop, dev), tempfile.TemporaryDirectory() as profile:
        shop.save(**{"[12, 30, 18]": "[]"})
        with dev, Browser(Path(profile)) as browser:
            dev.see("^web: requests are answered with this error")
            browser.resize(900, 620)
            browser.open(URL)
            browser.wait_text("ZeroDivisionError")
            browser.screenshot("error-page").rename(path)


if __name__ == "__main__":
    (HERE / "dev-terminal.svg").write_text(picture(session()), encoding="utf-8")
    error_page(HERE / "dev-error-page.png")

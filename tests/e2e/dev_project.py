"""A small ASGI application that a developer of a test edits."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.dev import Dev

LISTEN = ("--listen", "http=tcp://127.0.0.1:0")
APP = """\
import os
from shop.version import VERSION

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"version {VERSION}\\n".encode()})
"""


class Project:
    """A small project of a developer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.package = directory / "shop"
        self.package.mkdir()
        (self.package / "__init__.py").touch()
        (self.package / "main.py").write_text(APP)
        self.save("1")

    def save(self, version: str, code: str = "") -> None:
        """Save version.py as an editor does, perhaps with some code in front."""
        new = self.package / ".version.py.swp"
        new.write_text(f'{code}\nVERSION = "{version}"\n')
        new.rename(self.package / "version.py")

    def dev(self, *arguments: str, **more: object) -> Dev:
        """Return a dev of its application."""
        return Dev(self.directory, *LISTEN, *arguments, "shop.main:app", **more)  # type: ignore[arg-type]

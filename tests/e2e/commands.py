"""Services of a server's own command, and what their answers show."""

from __future__ import annotations

from tests.e2e.apps import App
from tests.e2e.harness import BIN
from tests.helpers.load import Result

UVICORN = (str(BIN / "uvicorn"), "--fd", "{http}", "--no-access-log", "app:app")
PLAIN = (str(BIN / "python"), "-S", "accept_loop.py")


def config(
    app: App, command: tuple[str, ...], *, workers: int = 2, more: str = "", rollout: str = ""
) -> str:
    words = ", ".join(f'"{word}"' for word in command)
    return f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
command = [{words}]
workers = {workers}
cwd = "{app.directory}"
{more}

[service.web.rollout]
{rollout or "probation = 0.2"}
"""


def versions(result: Result) -> set[str]:
    return {row.version for row in result.rows if row.version}

"""Services of an application in our own runtime."""

from __future__ import annotations

from tests.e2e.apps import App
from tests.e2e.harness import Manager


def config(
    app: App, *, target: str = "app:app", more: str = "", address: str = "tcp://127.0.0.1:0"
) -> str:
    return f"""
[listen]
http = "{address}"

[service.web]
app = "{target}"
workers = 2
cwd = "{app.directory}"
{more}

[service.web.http]
access_log = false

[service.web.rollout]
max_draining = 20
"""


BLOCKED = """
import time
from app import app as well
async def app(scope, receive, send):
    if scope.get("path") == "/block":
        time.sleep(600)
    await well(scope, receive, send)
"""


def line_with(manager: Manager, words: str) -> str:
    return next((line for line in manager.log.splitlines() if words in line), "")

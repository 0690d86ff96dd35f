"""A service whose application is preloaded."""

from __future__ import annotations

from tests.e2e.apps import App

LOAD = ("kat:conns=8,think=0.01", "short:rate=100")


def config(
    app: App, *, target: str = "app:app", more: str = "", workers: int = 2, preload: str = "true"
) -> str:
    return f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
app = "{target}"
preload = {preload}
workers = {workers}
cwd = "{app.directory}"
{more}

[service.web.http]
access_log = false
"""

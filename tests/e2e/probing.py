"""An application that answers probes as a test tells it to, and a manager that asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.applications import config
from tests.e2e.apps import App
from tests.e2e.harness import Manager

ACCEPTS = ("shared", "per-worker", "dispatch")
LOAD = ("short:rate=80", "slow:conns=2,s=0.3")
# /healthz answers what the release says (version.py), or what the file `health` does: a status for
# all, or for the worker of one pid. /cold waits while there is a file `cold`, and takes half a
# second the first time.
PROBED = """
import asyncio, os, time
from pathlib import Path
from app import app as well
import version
seen = []
async def app(scope, receive, send):
    path = scope.get("path")
    if path not in ("/healthz", "/cold"):
        return await well(scope, receive, send)
    status = getattr(version, "STATUS", 200)
    told = Path("health").read_text().split() if Path("health").exists() else []
    if path == "/cold":
        while Path("cold").exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0 if seen else 0.5)
        seen.append(path)
    elif told and told[1:] in ([], [str(os.getpid())]):
        status = int(told[0])
    body = getattr(version, "BODY", b"")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"""
READY = 'ready = { http = "/healthz", timeout = "10s" }\nready_timeout = "60s"'


def probed(tmp_path: Path) -> App:
    app = App("asgi", tmp_path)
    (app.directory / "probed.py").write_text(PROBED)
    return app


def manager_of(app: App, tmp_path: Path, *more: str, rollout: str = "") -> Manager:
    text = config(app, target="probed:app", more="\n".join(more))
    return Manager(tmp_path, f"{text}{rollout}\n")


def tell_health(app: App, *words: object) -> None:
    """Have /healthz answer this status, for one pid only if one is given; nothing: as it was."""
    new = app.directory / "health.new"
    new.write_text(" ".join(map(str, words)))
    new.rename(app.directory / "health")


def named(manager: Manager) -> dict[str, dict[str, Any]]:
    """The workers by name, `2.1`."""
    return {f"{w['generation']}.{w['slot']}": w for w in manager.workers()}

"""Workers that open ports of their own: the verdict says where, and who has the port already."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import Manager

ACCEPTS = "listener = socket.socket(fileno=3); listener.setblocking(True); listener.accept()"
ELSEWHERE = "own = socket.create_server(('127.0.0.1', 0)); own.accept()"
IN_A_CHILD = (
    "own = socket.create_server(('::1', 0), family=socket.AF_INET6)\nos.fork()\nown.accept()"
)
# The first worker has the kernel choose, and each later one wants the same.
FIXED = """
def open_port():
    port = int(open("port").read()) if os.path.exists("port") else 0
    own = socket.create_server(("127.0.0.1", port))
    open("port", "w").write(str(own.getsockname()[1]))
    return own
"""
BOTH = f"{FIXED}own = open_port(); {ACCEPTS}"
IN_A_HELPER = f"""{FIXED}
r, w = os.pipe()
if os.fork() == 0:
    own = open_port(); os.write(w, b"x"); time.sleep(1000)
os.close(w)
if not os.read(r, 1):
    sys.exit(1)
{ACCEPTS}
"""


def deploy(folder: Path, text: str) -> None:
    (folder / "server.py").write_text(
        "import os, signal, socket, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + text
    )


def config(folder: Path) -> str:
    return f"""\
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
command = ["{sys.executable}", "server.py"]
cwd = "{folder}"
ready_timeout = 4
"""


@pytest.mark.parametrize(
    ("text", "where"),
    [(ELSEWHERE, r"127\.0\.0\.1:\d+"), (IN_A_CHILD, r"\[::1\]:\d+")],
    ids=["itself", "a child"],
)
def test_the_verdict_on_a_worker_that_listens_elsewhere_says_where(
    tmp_path: Path, text: str, where: str
) -> None:
    deploy(tmp_path, ACCEPTS)
    with Manager(tmp_path, config(tmp_path)) as manager:
        deploy(tmp_path, text)
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        said = verdict["output"][-1]
        assert re.search(
            rf"it listens on {where}, which is none of its listeners: .*{{http}}", said
        )


@pytest.mark.parametrize("text", [BOTH, IN_A_HELPER], ids=["itself", "a helper"])
def test_the_verdict_on_a_port_that_is_taken_says_which_worker_has_it(
    tmp_path: Path, text: str
) -> None:
    deploy(tmp_path, text)
    with Manager(tmp_path, config(tmp_path)) as manager:
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        assert "Address already in use" in "".join(verdict["output"])
        port = (tmp_path / "port").read_text()
        said = verdict["output"][-1]
        assert said.startswith(f"web@1.1 listens on 127.0.0.1:{port}, which it opened itself")

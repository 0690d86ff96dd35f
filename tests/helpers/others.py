"""Asks a control socket as another user, whom the kernel knows by nothing but numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Connects by a relative path: the directories above may be closed to that user.
_PROGRAM = """
import contextlib, os, socket, sys
name, uid, gid, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setgid(int(gid)), os.setuid(int(uid))
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(name)
    for line in sys.stdin:
        with contextlib.suppress(BrokenPipeError):  # it has its answer already
            sock.sendall(line.encode() + b"\\0")
        answer = b""
        while not answer.endswith(b"\\0") and (piece := sock.recv(65536)):
            answer += piece
        print(answer[:-1].decode(), flush=True)
"""


def ask(control: Path, uid: int, gids: Sequence[int], *methods: str) -> list[dict[str, Any]]:
    """Return the replies to calls of io.sockmgr.Manager, made over one connection.

    Each of `methods` is a name, and behind a blank its parameters in JSON.
    The first of `gids` is the group of the process, the others are its further groups. Raises
    PermissionError if the kernel does not let it connect.
    """
    calls = [
        {"method": f"io.sockmgr.Manager.{name}", "parameters": json.loads(parameters or "{}")}
        for name, _, parameters in (method.partition(" ") for method in methods)
    ]
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, control.name, str(uid), *map(str, gids)]
    done = subprocess.run(
        argv, cwd=control.parent, input="\n".join(map(json.dumps, calls)), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    if "PermissionError" in done.stderr:
        raise PermissionError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]

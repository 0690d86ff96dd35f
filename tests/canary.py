"""A manager that is killed at each transition of a canary, and is followed by one that goes on.

`python -m tests.canary [TIMES]` kills it so often at each, under load, in each way of accepting,
and counts what failed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sockmgr.config.spec import Accept
from tests.e2e.apps import App
from tests.e2e.commands import UVICORN
from tests.e2e.harness import Done, Manager, wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load, Target

LOAD = "short:rate=60"
APP = 'app = "app:app"\nhttp = { access_log = false }'
STEPS = 'canary = { share = ["10%", "50%"], for = "2s", check = ["sh", "-c", "exec ./smoke.sh"] }'


def config(app: App, accept: Accept, rollout: str = "") -> str:
    """Return a config with a port of its own, for the next manager as well."""
    words = ", ".join(f'"{word}"' for word in UVICORN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"""
[listen]
http = "tcp://127.0.0.1:{port}"

[service.web]
{APP if accept is Accept.DISPATCH else f"command = [{words}]"}
workers = 2
cwd = "{app.directory}"
accept = "{accept}"

[service.web.rollout]
probation = "1s"
{rollout}
"""


@contextlib.contextmanager
def asked(manager: Manager, *arguments: str) -> Iterator[Callable[[], Done]]:
    """Have a verb run beside the test; what is yielded waits for its end."""
    found: list[Done] = []
    asking = threading.Thread(target=lambda: found.append(manager.run(*arguments)))
    asking.start()

    def ended() -> Done:
        asking.join()
        return found[0]

    yield ended
    asking.join()


def canary(manager: Manager) -> dict[str, Any] | None:
    """Return what the status says of the canary, if there is one."""
    rollout = manager.status()["services"]["web"]["rollout"]
    found: dict[str, Any] | None = rollout and rollout["canary"]
    return found


def who_answers(target: Target, connections: int) -> Counter[str]:
    """Open so many connections, one after the other; count the versions that answer."""
    counts: Counter[str] = Counter()
    for _ in range(connections):
        with socket.socket(target.family) as sock:
            sock.settimeout(30)
            sock.connect(target.address)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := sock.recv(4096):
                answer += piece
        counts[json.loads(answer.partition(b"\r\n\r\n")[2])["version"]] += 1
    return counts


# --- Where it is killed --------------------------------------------------------------------------

# What the log says there, whether somebody decides when that is said, and what the end is.
CHECKED = "web@2 check | looks well"
TRANSITIONS = {
    "it boots": ("", "", "committed"),
    "it gets its first share": ("step=1/2", "", "committed"),
    "its check runs": (CHECKED, "", "committed"),
    "it gets its next share": ("step=2/2", "", "committed"),
    "it has passed": ("canary passed", "", "committed"),
    "it is promoted": ("step=1/2", "promote", "committed"),
    "it is aborted": ("step=1/2", "abort", "aborted"),
    "its check fails": ("the door is shut", "", "aborted"),
}


def kill_when(manager: Manager, app: App, where: str) -> None:
    """Reload by a canary, kill the manager there, start the next, and see that it ends as it would.

    Version 1 serves before, and what the canary brings is version 2.
    """
    words, verb, end = TRANSITIONS[where]
    says = "echo the door is shut; sleep 0.3; exit 3" if "fails" in where else "echo looks well"
    smoke = app.directory / "smoke.sh"
    smoke.write_text(f"#!/bin/sh\n{says}\n")
    smoke.chmod(0o755)
    app.deploy("2")
    # What the next manager reads is not what is in force: only the canary has it.
    manager.config.write_text(manager.config.read_text() + "\n[service.web.env]\nRELEASE = '2'\n")
    with contextlib.ExitStack() as clients:  # which lose their manager, and change nothing
        clients.enter_context(asked(manager, "reload"))
        # What is shown is in the state as well; a line of the log need not be yet.
        wait_for(lambda: len(manager.workers()) > 2, "the new workers")
        wait_for(lambda: words in manager.log, words)
        if verb:
            clients.enter_context(asked(manager, verb))
            told = "canary passed" if verb == "promote" else "aborted"
            wait_for(lambda: manager.events(told), told)
        manager.kill9()
        manager.start()
    manager.wait_serving()
    wait_for(lambda: f"{end} service=web generation=2" in manager.log, end)
    wait_for(lambda: manager.status()["services"]["web"]["rollout"] is None, "the end")
    versions = who_answers(manager.target(), 20)
    assert set(versions) == ({"2"} if end == "committed" else {"1"}), (where, versions)
    assert manager.status()["services"]["web"]["generation"] == (2 if end == "committed" else 1)
    assert not manager.events("worker started", worker="web@3.1"), "it was tried once more"


def play(directory: Path, accept: Accept, where: str) -> tuple[int, int, str]:
    """Do so under load; return how many requests there were, how many failed, and how."""
    app = App("asgi", directory)
    with Manager(directory, config(app, accept, STEPS)) as manager:
        with Load(manager.target(), [LOAD]) as load:
            answered(load, count=5)
            kill_when(manager, app, where)
            answered(load, count=20)
            result = load.stop()
        return len(result.rows), len(result.failed), result.failures()


def main(arguments: list[str]) -> int:
    """Print a line for each transition and way of accepting; 0 only if nothing failed."""
    times = int(arguments[0]) if arguments else 20
    lost = 0
    for accept in Accept:
        for where in TRANSITIONS:
            requests = failed = 0
            for _ in range(times):
                with tempfile.TemporaryDirectory() as directory:
                    more, bad, how = play(Path(directory), accept, where)
                requests, failed = requests + more, failed + bad
                if bad:
                    print(f"  {how}", flush=True)
            told = f"{requests} requests, {failed} failed"
            print(f"{accept}: killed {times} times when {where}: {told}", flush=True)
            lost += failed
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

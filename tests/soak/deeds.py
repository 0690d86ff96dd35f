"""What is done to a manager in a soak: reloads of all kinds, and faults of more than twelve.

A fault that kills a process that may hold clients' connections returns a Death, which tells whose.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sockmgr.config.spec import Accept
from tests.crash_points.deeds import abort, add, canary, limit, promote, reload
from tests.crash_points.places import Alone, Place
from tests.deaths import Death, kill
from tests.e2e.harness import wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load

Deed = Callable[[Place, Load, random.Random], Death | None]
_LINGER = struct.pack("ii", 1, 0)  # close(2) sends RST


# --- Reloads -------------------------------------------------------------------------------------


def plain(place: Place, *_: object) -> None:
    reload(place)


def by_signal(place: Place, *_: object) -> None:
    place.deploy()
    os.kill(place.manager, signal.SIGHUP)


def all_together(place: Place, *_: object) -> None:
    place.write(place.text())  # a canary cannot go together with others
    place.deploy()
    place.begin("reload", "--together")


def with_canary(place: Place, *_: object) -> None:
    canary(place)


def promoted(place: Place, *_: object) -> None:
    promote(place)


def given_up(place: Place, *_: object) -> None:
    abort(place)


def rolled_back(place: Place, *_: object) -> None:
    place.begin("rollback", "http")


def other_model(place: Place, _: Load, dice: random.Random) -> None:
    """Reload to another way of accepting."""
    place.accept = dice.choice([each for each in Accept if each is not place.accept])
    place.write(place.text())
    reload(place)


def more_services(place: Place, *_: object) -> None:
    add(place)


def limited(place: Place, *_: object) -> None:
    """Reload to a release whose workers are recycled after a few requests each."""
    limit(place)


def storm(place: Place, *_: object) -> None:
    for _ in range(5):
        reload(place)


def one_worker(place: Place, _: Load, dice: random.Random) -> None:
    workers = place.status()["services"]["http"]["workers"]
    worker = dice.choice([each for each in workers if each["state"] == "ready"])
    place.begin("restart-worker", f"http@{worker['generation']}.{worker['slot']}")


def scaled(place: Place, *_: object) -> None:
    place.do("scale", "http", "+1")
    place.begin("scale", "http", "-1")


def upgraded(place: Place, *_: object) -> None:
    place.begin("upgrade")


RELOADS: Sequence[Deed] = (
    plain, by_signal, all_together, with_canary, promoted, given_up, rolled_back, other_model,
    more_services, limited, storm, one_worker, scaled,
)  # fmt: skip


# --- Faults --------------------------------------------------------------------------------------


def worker_killed(place: Place, load: Load, dice: random.Random) -> Death:
    return kill(place.outside(dice.choice(sorted(_ready(place)))), load)


def worker_frozen(place: Place, _: Load, dice: random.Random) -> None:
    _freeze(place.outside(dice.choice(sorted(_ready(place)))))


def worker_told_to_stop(place: Place, _: Load, dice: random.Random) -> None:
    place.signal(dice.choice(sorted(_ready(place))), signal.SIGTERM)


def dispatcher_killed(place: Place, load: Load, _: random.Random) -> Death | None:
    pid = place.status()["manager"]["dispatcher"]
    return kill(place.outside(pid), load) if pid else None


def dispatcher_frozen(place: Place, *_: object) -> None:
    if pid := place.status()["manager"]["dispatcher"]:
        with suppress(ProcessLookupError):  # the manager may kill it, for it does not answer
            _freeze(place.outside(pid))


def manager_frozen(place: Place, *_: object) -> None:
    _freeze(place.manager)


def broken_release(place: Place, *_: object) -> None:
    place.deploy(broken=True)
    place.attend("reload", "http")
    place.deploy()  # or whoever has died could not be started again


def side_fails(place: Place, *_: object) -> None:
    place.spoil("exits")
    place.begin("reload", "side")


def side_is_deaf(place: Place, *_: object) -> None:
    """The worker that comes ignores its stop signal, and the next reload has to kill it."""
    place.spoil("is deaf")
    place.do("reload", "side")
    place.begin("reload", "side")


def side_dies(place: Place, *_: object) -> None:
    place.signal(max(place.workers("side")), signal.SIGKILL)


def side_shuts_its_listener(place: Place, *_: object) -> None:
    place.ask("side", "/do/shutdown")


def clients_reset(place: Place, *_: object) -> None:
    """A hundred clients connect, say half of a request, and reset the connection."""

    def main() -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", place.ports["http"])) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)

    place.inside(main)


def control_abused(place: Place, *_: object) -> None:
    """A reload is asked for and hung up on, and a client says what is no call."""
    place.begin("reload", "http", "--timeout", "10ms")
    place.do("scale", "nobody", "3")


def own_paths_removed(place: Place, *_: object) -> None:
    """The control socket goes: the manager has to make it anew."""
    if isinstance(place, Alone):
        control = place.top / "control.sock"
        control.unlink()
        wait_for(control.exists, "another control socket")


def watcher_killed(place: Place, *_: object) -> None:
    """The keeper, or the guard."""
    before = place.watcher
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: _other(place, before), "another keeper or guard")


def manager_killed(place: Place, load: Load, _: random.Random) -> Death:
    death = kill(place.manager, load)
    place.succeed()
    return death


def manager_killed_in_a_reload(place: Place, load: Load, dice: random.Random) -> Death:
    reload(place)
    answered(load, count=dice.randrange(1, 60))
    return manager_killed(place, load, dice)


GENTLE: Sequence[Deed] = (  # which leave the manager, the dispatcher and their watcher alone
    worker_killed, worker_frozen, worker_told_to_stop, broken_release, side_fails, side_is_deaf,
    side_dies, side_shuts_its_listener, clients_reset, control_abused, own_paths_removed,
)  # fmt: skip
FAULTS: Sequence[Deed] = (
    *GENTLE, dispatcher_killed, dispatcher_frozen, manager_frozen, watcher_killed, manager_killed,
    manager_killed_in_a_reload,
)  # fmt: skip


# What has to succeed, and what has to fail. Of the others nobody can say: five reloads at once may
# replace each other, and what was asked of a manager that dies has no answer.
_SURE = {
    plain, all_together, with_canary, promoted, other_model, more_services, limited, one_worker,
    scaled, upgraded,
}  # fmt: skip
_VAIN = {broken_release, side_fails}


def wrong(deed: Deed, codes: Sequence[int]) -> str:
    """Say what is wrong with the answers to a deed that nothing else was beside."""
    told = f"{deed.__name__} was answered {codes}" if codes else ""
    if deed in _SURE:
        return told if any(codes) else ""
    return told if deed in _VAIN and not all(code == 1 for code in codes) else ""


def _ready(place: Place) -> list[int]:
    return [pid for pid, state in place.workers("http").items() if pid and state == "ready"]


def _freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.5)  # what is under way meanwhile waits, and is answered after
    finally:
        os.kill(pid, signal.SIGCONT)


def _other(place: Place, before: int) -> bool:
    with suppress(ValueError, ProcessLookupError, AssertionError):
        return place.watcher != before
    return False

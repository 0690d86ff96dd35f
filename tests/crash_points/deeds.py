"""What leads a manager to each of its crash points. A deed is done to a place.

Each point has one deed, or a reason in UNREACHED why none leads there.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sockmgr.config.spec import Accept
from sockmgr.manager.crash_points import NAMES
from tests.crash_points.places import Alone, Place
from tests.e2e.harness import wait_for

Deed = Callable[[Place], None]
SOON = 60.0

EXTRA = """listen = ["extra"]
app = "main:app"
http = {{ access_log = false }}
accept = "{accept}"
"""


def nothing(_: Place) -> None:
    """The next manager comes there by itself."""


# --- Rollouts ------------------------------------------------------------------------------------


def reload(place: Place) -> None:
    place.deploy()
    place.begin("reload", "http")


def broken(place: Place) -> None:
    place.deploy(broken=True)
    place.begin("reload", "http")


def canary(place: Place) -> None:
    keys = 'canary = { share = ["20%"], for = "0.5s", check = ["true"] }'
    place.write(place.text(rollout=keys))
    reload(place)


def long(place: Place) -> None:
    """A canary, which goes on if the manager dies with a decision that it has not written down."""
    place.deploy()
    place.begin("reload", "http", "--canary", "20%", "--for", "10s")
    _wait(place, lambda: bool(_rollout(place).get("canary")), "the canary")


def promote(place: Place) -> None:
    long(place)
    place.begin("promote", "http")


def abort(place: Place) -> None:
    long(place)
    place.begin("abort", "http")


def together(place: Place) -> None:
    place.deploy()
    place.begin("reload", "--together")


def one_fails(place: Place) -> None:
    place.spoil("exits")
    together(place)


def hook_takes_long(place: Place) -> None:
    hook = '\n[service.side.hooks]\nbefore = { run = ["sleep", "60"], timeout = "0.3s" }'
    place.write(place.text(side="drain_timeout = '0.5s'" + hook))
    place.begin("reload", "side")


def deaf(place: Place) -> None:
    """Workers that hear no stop signal, and are killed."""
    place.spoil("is deaf")
    place.attend("reload", "side")
    place.begin("reload", "side")


def deaf_and_many(place: Place) -> None:
    """The same, with a long time to drain and few that may."""
    keys = "drain_timeout = '20s'\nrollout = { max_draining = 1 }"
    place.write(place.text(side=keys))
    place.spoil("is deaf")
    for _ in range(3):
        place.attend("reload", "side")
    place.begin("reload", "side")


# --- Workers -------------------------------------------------------------------------------------


def preloaded(place: Place) -> None:
    """The process of a worker that is made by another is known when it takes connections."""
    place.write(place.text(http="preload = true"))
    reload(place)


def scale(place: Place) -> None:
    place.begin("scale", "http", "+1")


def restart_worker(place: Place) -> None:
    worker = _http(place)[0]
    place.begin("restart-worker", f"http@{worker['generation']}.{worker['slot']}")


def limit(place: Place) -> None:
    place.write(place.text(http="max_requests = 20"))
    reload(place)


def told_to_stop(place: Place) -> None:
    """By somebody else: it says so, and has requests in hand, so its end is not seen first."""
    for _ in range(4):
        place.ask("http", "/slow?s=3")
    if place.accept is Accept.DISPATCH:
        _wait(place, lambda: all(each["connections"] for each in _http(place)), "the requests")
    place.signal(_pid(place, "http"), signal.SIGTERM)


def no_directory(place: Place) -> None:
    """A worker of `side` that ended cannot be started again."""
    there = place.directory("side")
    pid = _pid(place, "side")
    there.rename(there.with_name("elsewhere"))
    place.signal(pid, signal.SIGKILL)


def none_starts(place: Place) -> None:
    """No worker of `side` serves, and a client waits there."""
    place.spoil("exits")
    place.signal(_pid(place, "side"), signal.SIGKILL)
    place.ask("side")


def hangs(place: Place) -> None:
    _with_extra(place, 'hang_timeout = "1s"')
    place.signal(_pid(place, "extra"), signal.SIGSTOP)


def is_asked(place: Place) -> None:
    """A service whose workers are asked whether they are healthy, for the first time."""
    accept = Accept.PER_WORKER if place.accept is Accept.SHARED else place.accept
    text = place.text(extra=EXTRA.format(accept=accept) + 'healthy = { http = "/" }')
    place.write(text)
    place.begin("reload")


# --- Config, and the manager itself --------------------------------------------------------------


def add(place: Place) -> None:
    place.write(place.text(extra=EXTRA.format(accept=place.accept)))
    place.begin("reload")


def remove(place: Place) -> None:
    _with_extra(place)
    place.write(place.text())
    place.begin("reload")


def add_behind_another(place: Place) -> None:
    more = EXTRA.format(accept=place.accept) + 'after = ["late"]'
    place.write(place.text(extra=more, more=_late(place)))
    place.begin("reload")


def _late(place: Place, *keys: str) -> str:
    return "\n".join([
        "[service.late]", 'command = ["sleep", "1000"]', "listen = []",
        f'cwd = "{place.directory("side")}"', 'ready = { delay = "0.5s" }', *keys, "",
    ])  # fmt: skip


def upgrade(place: Place) -> None:
    place.begin("upgrade")


def restart(place: Place) -> None:
    place.begin("systemctl", "restart", "shop.service")


def stop_now(place: Place) -> None:
    place.begin("stop", "--now")


# --- Which for which -----------------------------------------------------------------------------

_BY_DEED: Mapping[Deed, str] = {
    nothing: "control-claimed predecessor-read listeners-taken workers-adopted manager-there tick "
    "state-half-written state-written state-copied all-saved tell-hello tell-service tell-attach "
    "tell-queue tell-listen tell-feed tell-settled tell-ask dispatcher-adopted "
    "tell-moves",
    reload: "reload worker-ready worker-exited quiet hook-done spawn feed run-hook drain cut-over "
    "committed descriptor-stored descriptor-forgotten queue-renewed hook-started "
    "tell-quiet tell-detach tell-give",
    broken: "aborted",
    canary: "canary-step canary-passed check-passed",
    promote: "promote",
    abort: "take-back",
    together: "let",
    one_fails: "go-back",
    hook_takes_long: "end-hook",
    deaf: "kill",
    deaf_and_many: "finish",
    preloaded: "tell-process",
    scale: "scale",
    restart_worker: "recycle spawned-stored",
    limit: "recycled",
    told_to_stop: "worker-stopping tell-abandon",
    no_directory: "spawn-failed",
    none_starts: "clients-wait",
    hangs: "hung",
    is_asked: "health",
    add: "service-added listener-opened config-accepted move-queue-made",
    remove: "stop refuse stopped service-gone listener-closed move-queue-ended tell-forget",
    add_behind_another: "released",
    upgrade: "proof-started proven control-handed-over new-code dispatcher-started "
    "dispatcher-succeeds tell-release tell-end",
    restart: "leaving",
    stop_now: "stop-now",
}
DEEDS = {point: deed for deed, points in _BY_DEED.items() for point in points.split()}

# What a save does is done again and again: the first time is a takeover's, a later one a rollout's.
REPEATS = {
    "descriptor-stored": (1, 6), "descriptor-forgotten": (1, 3),
    "state-half-written": (1, 6, 9), "state-written": (1, 6, 9), "state-copied": (1, 6, 9),
    "all-saved": (1, 6, 9), "tell-attach": (1, 3), "tell-feed": (1, 2), "tell-process": (1, 2),
}  # fmt: skip

UNREACHED = {
    "start": "the first manager of all has no client to lose; tests/e2e/test_takeover.py",
    "serving": "the same",
    "waited-in-vain": "the same",
    "feed-failed": "the kernel refuses a program only where memory is short; the simulation has it",
    "tell-connections": "only if a dispatcher at rest held some, at an instant that nobody chooses",
}


def points(chosen: Iterable[str] = ()) -> list[str]:
    """Return the points, those of REPEATS with their times: all, or what was `chosen`."""
    every = [
        f"{point}:{time}" for point in sorted(NAMES - UNREACHED.keys())
        for time in REPEATS.get(point, (1,))
    ]  # fmt: skip
    wanted = {each if ":" in each else f"{each}:1" for each in chosen}
    return [*wanted] if wanted else every


def applies(point: str, place: Place) -> bool:
    """Tell whether managers come to a point there."""
    name = point.partition(":")[0]
    if name.startswith(("tell-", "dispatcher-")):
        return place.accept is Accept.DISPATCH
    alone = isinstance(place, Alone)
    if name == "queue-renewed":  # if systemd has none, and a worker has had it: no dispatcher
        return alone and place.accept is not Accept.DISPATCH
    return alone if name == "state-copied" else not alone if name == "leaving" else True


def deed_of(point: str) -> Deed:
    """Return what leads to a point; for a later time than the first it takes a reload."""
    name, _, time = point.partition(":")
    deed = DEEDS[name]
    return reload if deed is nothing and time not in ("", "1") else deed


def undo(place: Place) -> None:
    """Have everything as it was before any deed."""
    elsewhere = place.directory("elsewhere")
    if elsewhere.exists():
        elsewhere.rename(place.directory("side"))
    place.spoil("none")
    place.deploy()
    place.write(place.text())


# --- How to get there ----------------------------------------------------------------------------


def _with_extra(place: Place, *keys: str) -> None:
    place.write(place.text(extra="\n".join((EXTRA.format(accept=place.accept), *keys))))
    place.attend("reload")


def _pid(place: Place, service: str) -> int:
    return max(place.workers(service))


def _http(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.status()["services"]["http"]["workers"]
    return found


def _rollout(place: Place) -> dict[str, object]:
    found: dict[str, object] = place.status()["services"]["http"]["rollout"] or {}
    return found


def _wait(place: Place, look: Callable[[], bool], what: str) -> None:
    """Wait for it, or for the end of the manager, which may be at a point before it."""

    def seen() -> bool:
        try:
            return look()
        except (OSError, AssertionError, KeyError):
            return any(place.marks.iterdir())

    wait_for(seen, what, timeout=SOON)

"""The text of a story: specs, facts and actions as lines that people read and tests replay.

A line that starts with `>` is a fact: `> +1.5 exit 2.1 3`, 1.5 s after the one before it. The lines
below it are what the fleet answered. A failing property prints its story in this format, so it can
be saved as a transcript as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from sockmgr.config.hooks import Hook, Hooks, Moment
from sockmgr.config.spec import (
    SURGE_ALL,
    Accept,
    Accepting,
    Address,
    Canary,
    Delay,
    Listen,
    Rollout,
    Scheme,
    Spec,
    Surge,
)
from sockmgr.fleet.group import Gate, Together
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    CanaryPassed,
    CanaryStep,
    CheckPassed,
    ClientsWait,
    Committed,
    CutOver,
    Drain,
    EndHook,
    Fact,
    Feed,
    FeedFailed,
    Finish,
    GoBack,
    Health,
    HookDone,
    Hung,
    Kill,
    Let,
    Promote,
    Quiet,
    Recycle,
    Recycled,
    Refuse,
    Released,
    Reload,
    RunHook,
    Scale,
    Serving,
    Spawn,
    SpawnFailed,
    Start,
    Stop,
    StopNow,
    Stopped,
    TakeBack,
    Tick,
    WaitedInVain,
    WorkerExited,
    WorkerId,
    WorkerReady,
    WorkerStopping,
)

BROKEN = 3  # the exit status that says "broken code" in every spec here
ROLLOUT_KEYS = (
    "surge", "probation", "max_failed_starts", "start_concurrency", "max_draining", "exclusive",
    "canary",
)  # fmt: skip
SPEC_KEYS = ("workers", "ready", "ready_timeout", "drain_timeout", "max_age", "accept", "listen",
             "hooks")  # fmt: skip


def make_spec(name: str, **settings: Any) -> Spec:
    """Return a spec that runs `name`, with settings of it and of its rollout."""
    rollout = {key: settings.pop(key) for key in ROLLOUT_KEYS if key in settings}
    return Spec(
        service="web",
        argv=(name,),
        executable=f"/bin/{name}",
        cwd="/",
        broken_exits=frozenset({BROKEN}),
        rollout=Rollout(**{"probation": 0.5, **rollout}),  # not the default, which may change
        **settings,
    )


def listening(*names: str) -> tuple[Listen, ...]:
    """Return listeners of these names, on addresses of their own."""
    return tuple(
        Listen(name=name, address=Address(scheme=Scheme.ABSTRACT, path=name)) for name in names
    )


def hooked(**timeouts: float | str) -> Hooks:
    """Return hooks at these moments, each with a timeout."""
    return Hooks(**{at: Hook(argv=(at,), timeout=float(limit)) for at, limit in timeouts.items()})


# --- Specs ---------------------------------------------------------------------------------------


def _surge(text: str) -> Surge:
    if text == "all":
        return SURGE_ALL
    return Surge(amount=int(text.rstrip("%")), percent=text.endswith("%"))


def _canary(text: str) -> Canary:
    """Read `10,50/30s+check`: the shares, how long a step takes, then `check` and `hold`."""
    steps, *more = text.split("+")
    shares, seconds = steps.split("/")
    return Canary(
        shares=tuple(map(int, shares.split(","))),
        seconds=float(seconds.rstrip("s")),
        hold="hold" in more,
        check=("./smoke.sh",) if "check" in more else (),
    )


def _tell_canary(canary: Canary) -> str:
    more = f"{'+check' if canary.check else ''}{'+hold' if canary.hold else ''}"
    return f"{','.join(map(str, canary.shares))}/{canary.seconds:.15g}s{more}"


READERS: dict[str, Callable[[str], Any]] = {
    "surge": _surge,
    "probation": float,
    "max_failed_starts": int,
    "start_concurrency": int,
    "max_draining": int,
    "exclusive": lambda text: text == "yes",
    "canary": _canary,
    "workers": int,
    "ready": lambda text: Delay(seconds=1.0) if text == "delay" else Accepting(),
    "ready_timeout": float,
    "drain_timeout": float,
    "max_age": float,
    "accept": Accept,
    "listen": lambda text: listening(*text.split(",")),
    "hooks": lambda text: hooked(**dict(pair.split(":") for pair in text.split(","))),
}


def read_spec(words: list[str]) -> Spec:
    """Read `v2 workers=3 surge=1`."""
    pairs = (word.split("=") for word in words[1:])
    return make_spec(words[0], **{key: READERS[key](value) for key, value in pairs})


def tell_spec(spec: Spec) -> str:
    """Write a spec so that `read_spec` reads it: only what differs from the defaults."""
    plain = make_spec("plain")
    told = [(key, getattr(spec, key), getattr(plain, key)) for key in SPEC_KEYS]
    told += [(k, getattr(spec.rollout, k), getattr(plain.rollout, k)) for k in ROLLOUT_KEYS]
    return " ".join([spec.argv[0], *(f"{k}={_tell(v)}" for k, v, usual in told if v != usual)])


def _tell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(listen.name for listen in value)
    if isinstance(value, Delay):
        return "delay"
    if isinstance(value, Canary):
        return _tell_canary(value)
    if isinstance(value, Hooks):
        found = {moment: value.at(moment) for moment in Moment}
        return ",".join(f"{at}:{hook.timeout:g}" for at, hook in found.items() if hook)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


# --- Facts ---------------------------------------------------------------------------------------


def read_worker(text: str) -> WorkerId:
    """Read `2.1`."""
    generation, slot = text.split(".")
    return WorkerId(int(generation), int(slot))


def read_fact(words: list[str]) -> Fact:  # noqa: PLR0911, PLR0912, C901 - one return a fact
    """Read one fact, without its time."""
    match words:
        case ["start", *spec]:
            left = [int(lease) for word in spec if word[0] == "!" for lease in word[1:].split(",")]
            rest = [word for word in spec if word[0] != "!"]
            return Start(spec=read_spec(rest), left=tuple(left))
        case ["reload", request, *spec]:
            return Reload(spec=read_spec(spec), request=int(request.lstrip("#")))
        case ["ready", worker, *draw]:
            return WorkerReady(worker=read_worker(worker), draw=float("".join(draw) or 0))
        case ["exit", worker, status, *took]:
            id = read_worker(worker)
            return WorkerExited(worker=id, status=int(status), took=took == ["took"])
        case ["stopping", worker, *took]:
            return WorkerStopping(worker=read_worker(worker), took=took == ["took"])
        case ["fail", worker, *error]:
            return SpawnFailed(worker=read_worker(worker), error=" ".join(error))
        case ["quiet", lease]:
            return Quiet(lease=int(lease))
        case ["clients", "wait"]:
            return ClientsWait()
        case ["feed-failed", *error]:
            return FeedFailed(error=" ".join(error))
        case ["scale", workers]:
            return Scale(workers=int(workers))
        case ["recycle", worker, *why]:
            return Recycle(worker=read_worker(worker), why=" ".join(why))
        case ["worn", worker, limit, *why]:
            worn = Limit(limit)
            return Recycle(worker=read_worker(worker), why=" ".join(why), limit=worn)
        case ["hung", worker, *why]:
            return Hung(worker=read_worker(worker), why=" ".join(why))
        case ["promote", generation]:
            return Promote(generation=int(generation))
        case ["take-back", generation, *why]:
            return TakeBack(generation=int(generation), why=" ".join(why))
        case ["check-passed", generation, step]:
            return CheckPassed(generation=int(generation), step=int(step))
        case ["health", worker, *why]:
            return Health(worker=read_worker(worker), why=" ".join(why))
        case ["hook", generation, moment, *fault]:
            at = Moment(moment)
            return HookDone(generation=int(generation), moment=at, fault=" ".join(fault))
        case ["stop"]:
            return Stop()
        case ["stop", "now"]:
            return StopNow()
        case ["tick"]:
            return Tick()
        case ["let", group, step]:
            return Let(together=Together(group=int(group), let=Gate[step]))
        case ["go", "back", group, failed]:
            return GoBack(group=int(group), failed=failed)
        case ["released"]:
            return Released()
        case _:
            raise ValueError(f"no such fact: {' '.join(words)}")


def tell_fact(fact: Fact) -> str:  # noqa: PLR0911, PLR0912, C901 - one return a fact
    """Write one fact so that `read_fact` reads it."""
    match fact:
        case Start():
            left = " !" + ",".join(map(str, fact.left)) if fact.left else ""
            return f"start {tell_spec(fact.spec)}{left}"
        case Reload():
            return f"reload #{fact.request} {tell_spec(fact.spec)}"
        case WorkerReady():
            return f"ready {fact.worker}{f' {fact.draw:.15g}' if fact.draw else ''}"
        case WorkerExited():
            return f"exit {fact.worker} {fact.status}{' took' if fact.took else ''}"
        case WorkerStopping():
            return f"stopping {fact.worker}{' took' if fact.took else ''}"
        case SpawnFailed():
            return f"fail {fact.worker} {fact.error}"
        case Quiet():
            return f"quiet {fact.lease}"
        case ClientsWait():
            return "clients wait"
        case FeedFailed():
            return f"feed-failed {fact.error}"
        case Scale():
            return f"scale {fact.workers}"
        case Recycle(limit=Limit() as limit):
            return f"worn {fact.worker} {limit} {fact.why}"
        case Recycle():
            return f"recycle {fact.worker} {fact.why}"
        case Hung():
            return f"hung {fact.worker} {fact.why}"
        case Promote():
            return f"promote {fact.generation}"
        case TakeBack():
            return f"take-back {fact.generation} {fact.why}"
        case CheckPassed():
            return f"check-passed {fact.generation} {fact.step}"
        case Health():
            return f"health {fact.worker} {fact.why}".rstrip()
        case HookDone():
            fault = f" {fact.fault}" if fact.fault else ""
            return f"hook {fact.generation} {fact.moment}{fault}"
        case Stop():
            return "stop"
        case StopNow():
            return "stop now"
        case Tick():
            return "tick"
        case Let():
            return f"let {fact.together.group} {fact.together.let.name}"
        case GoBack():
            return f"go back {fact.group} {fact.failed}"
        case Released():
            return "released"
        case _:
            assert_never(fact)


# --- Actions -------------------------------------------------------------------------------------


def tell_action(action: Action) -> str:  # noqa: PLR0911, PLR0912, C901 - one return an action
    """Write one action."""
    match action:
        case Spawn():
            where = f"{action.worker} of {action.spec.argv[0]} on lease {action.lease}"
            return f"spawn {where}{' in background' if action.background else ''}"
        case Feed():
            return "feed " + " ".join(f"{lease}*{weight}" for lease, weight in action.leases)
        case Refuse():
            return "refuse"
        case Drain():
            return f"drain {action.worker}: {action.why}"
        case RunHook():
            return f"run hook {action.moment} of {action.generation}, {action.spec.argv[0]}"
        case EndHook():
            return f"end hook {action.moment} of {action.generation}: {action.why}"
        case Kill():
            return f"kill {action.worker}: {action.why}"
        case Finish():
            return f"finish {action.worker}: {action.why}"
        case Serving():
            return f"SERVING {action.generation}"
        case CanaryStep():
            which = f"step {action.step + 1} of {action.steps}"
            return f"CANARY {action.generation}: {action.share} %, {which}"
        case CanaryPassed():
            return f"CANARY {action.generation} PASSED"
        case CutOver():
            return f"CUT OVER to {action.generation}"
        case Committed():
            return f"COMMITTED {action.generation} for {_requests(action.requests)}"
        case Aborted():
            ended = f"ABORTED {action.generation} for {_requests(action.requests)}"
            blame = f" (see {action.worker})" if action.worker else ""
            return f"{ended}, kept {action.kept} ({action.ready} ready): {action.reason}{blame}"
        case WaitedInVain():
            return f"WAITED IN VAIN {action.generation}"
        case Recycled():
            pause = f", the next in {action.pause:g} s" if action.pause else ""
            return f"RECYCLED {action.worker}: {action.why}{pause}"
        case Stopped():
            return "STOPPED"
        case _:
            assert_never(action)


def _requests(requests: tuple[int, ...]) -> str:
    return ", ".join(f"#{request}" for request in requests)

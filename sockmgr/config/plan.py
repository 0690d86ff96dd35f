"""List the changes from one Config to the next, and the effect of each. Changes nothing.

Marks: + added, - removed, ~ changed without a restart, ! changed, and workers are replaced for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec.structs import replace

from sockmgr.api.types import Change, Effect, Kind, Plan
from sockmgr.config import app_keys, settings
from sockmgr.config.config import Config, ServiceConfig, parse
from sockmgr.config.document import shown
from sockmgr.config.outside import NOTHING, Outside, below
from sockmgr.config.spec import Address, Listen, ReleaseName
from sockmgr.config.values import SIGNALS
from sockmgr.errors import ConfigError
from sockmgr.terminal.format import count, size


class Takes(StrEnum):
    """What a change comes to, in words. For each there is a test that a reload does it."""

    OPENED = "opened before any worker starts"
    CLOSED = "closed when nothing waits there any more"
    OPENED_FIRST = "the new address is opened first"
    CLOSED_AFTER = "the old one closed after a rolling reload"
    TAKEN_OVER = "taken over from listen."
    GOES_ON = "goes on as listen."
    RENAMED = "stays open under its new name"
    SET = "set on the open socket"
    NOT_OURS = "no effect: who has bound the path rules it, as SocketMode= of a unit"
    NO_BACKLOG = "no effect: UDP has no backlog"
    AT_STOP = "at the next stop"
    STARTED = "started"
    STOPPED = "drained and stopped"
    ROLLING = "rolling reload"
    NO_WORKERS = "needs no new workers"
    NEXT_START = "from the next start of the manager"
    FOR_DEV = "for `sockmgr dev` only"


# Keys of a service that can change without new workers. All others affect the processes themselves.
_EFFECTS = {"workers": Effect.SCALE} | dict.fromkeys(
    (
        "after", "ready", "ready_timeout", "healthy", "stop_signal", "drain_timeout", "max_age",
        "max_rss", "max_requests", "max_cpu_time", "when_down", "rollout", "release", "hooks",
    ),
    Effect.POLICY,
)  # fmt: skip
# Keys of a service that are tables, whose own keys are compared one by one.
_TABLES = {
    "http": app_keys.HTTP,
    "rollout": settings.ROLLOUT,
    "hooks": settings.HOOKS,
    "resources": settings.RESOURCES,
}
_SIGNALS = {number: name for name, number in SIGNALS.items()}
_NUMBERS: dict[str, Callable[[int], str]] = {  # keys that are written in another way
    "workers": lambda number: str(number or "auto"),
    "umask": lambda number: f"{number:03o}",
    "mode": lambda number: f"{number:04o}",
    "max_rss": size,
    "memory_high": size,
    "memory_max": size,
    "stop_signal": lambda number: _SIGNALS.get(number, str(number)),
}
_OF_THE_END = ("stop_delay", "ready_file")  # keys of the manager that a reload takes over
RELEASE = "release."  # before the name of a service: its directory, which no key says
_SECRET = ("env",)  # their values must not appear on a terminal or in the journal


@dataclass(frozen=True, slots=True)
class Standing:
    """What is so of a manager that its config does not say.

    `not_ours` is as in diff(). `rollbacks` are the services that run an earlier generation, whose
    number they have. `directories` returns of any other the real directory in which it runs, and
    that in which it would run from a reload on; they are "" if that is not known. `check` raises
    ConfigError for a config by which no worker can be started.
    """

    not_ours: Collection[Address] = ()
    rollbacks: Mapping[str, int] = field(default_factory=dict)
    directories: Callable[[ServiceConfig], tuple[str, str]] = lambda _: ("", "")
    check: Callable[[Config], None] = lambda _: None


_NOTHING_MORE = Standing()


def plan(
    running: Config,
    own: Callable[[], Config],
    text: str | None,
    file: str,
    outside: Outside = NOTHING,
    standing: Standing = _NOTHING_MORE,
) -> Plan:
    """Return the changes from `running` to the config `text` of `file`; raise ConfigError.

    `own` reads the config that a reload would use. It is also taken if `text` is None. `outside` is
    what is outside of `text`.
    """

    wanted = own() if text is None else parse(text.encode(), file=file, outside=outside)
    try:
        applies = text is None or own() == wanted
    except ConfigError:  # the manager's own file is broken or gone, but `text` is not
        applies = False
    if applies:
        standing.check(wanted)
    returns = _returns(standing.rollbacks, wanted)
    moved = _releases(running, wanted, standing)
    changes = (*diff(running, wanted, standing.not_ours), *returns, *moved)
    return Plan(changes=changes, applies=applies)


def diff(old: Config, new: Config, not_ours: Collection[Address] = ()) -> tuple[Change, ...]:
    """Return every change from `old` to `new`: listeners first, then services, then the rest.

    At the addresses `not_ours` somebody else has bound the path of a unix socket.
    """
    named = (*old.variables, *new.variables)
    changes = (*_listeners(old, new, not_ours), *_services(old, new), *_rest(old, new))
    return tuple(_without_values(change, named) for change in changes)


def _without_values(change: Change, named: Sequence[tuple[str, str]]) -> Change:
    """Return a change that tells the names of the variables that it comes from, and no value."""
    names = {name for _, name in below(named, change.path)}
    values = f" {change.old} → {change.new}: "
    if not names or values not in change.text:
        return change
    text = change.text.replace(values, f" ({', '.join(sorted(names))}): ", 1)
    return replace(change, old="", new="", text=text)


def accepted(old: Config, new: Config, committed: Collection[str]) -> Config:
    """Return `old` with the services `committed` as in `new`, or without those not in `new`."""
    known = [service.name for service in new.services]
    services = {s.name: s for s in old.services if s.name in known or s.name not in committed}
    services |= {s.name: s for s in new.services if s.name in committed}
    # In the order of `new`, whichever commits first: in the end both are the same.
    services = {name: services[name] for name in (*known, *services) if name in services}
    listens = old.listens()
    fresh = {f"service.{name}" for name in committed}
    for service in new.services:
        if service.name in committed:
            listens |= {name: new.listens()[name] for name in service.listen}
            fresh |= {f"listen.{name}" for name in service.listen}
    listens = {name: listens[name] for name in (*new.listens(), *listens) if name in listens}
    used = {name for service in services.values() for name in service.listen}
    stay = {f"service.{name}" for name in services} | {f"listen.{name}" for name in used}
    fresh |= {at for at, _ in new.variables if not at.startswith(("service.", "listen."))}
    return replace(
        new,
        name=old.name,
        listen=tuple(listen for name, listen in listens.items() if name in used),
        services=tuple(services.values()),
        variables=tuple(sorted(below(old.variables, *stay - fresh) | below(new.variables, *fresh))),
    )


def without(config: Config, service: str) -> Config:
    """Return `config` without this service, and the listeners that only it has."""
    others = tuple(each for each in config.services if each.name != service)
    return accepted(config, replace(config, services=others), (service,))


def addresses(config: Config, services: Collection[str]) -> set[Address]:
    listens, mine = config.listens(), (each for each in config.services if each.name in services)
    return {listens[name].address for service in mine for name in service.listen}


def changed(old: Config, new: Config) -> frozenset[str]:
    """Return the services of `new` that are new or changed, or whose listeners changed."""

    def whole(config: Config) -> dict[str, object]:
        listens = config.listens()
        return {s.name: (s, [listens[name] for name in s.listen]) for s in config.services}

    before, after = whole(old), whole(new)
    return frozenset(name for name, what in after.items() if before.get(name) != what)


def _listeners(old: Config, new: Config, not_ours: Collection[Address]) -> Iterator[Change]:
    before, after = old.listens(), new.listens()
    was = {listen.address: name for name, listen in before.items()}
    will = {listen.address: name for name, listen in after.items()}
    for name, listen in before.items():
        newer = will.get(listen.address)
        # One that only gets another name stays open, which is told below.
        if name not in after and (newer is None or newer in before):
            path, at = f"listen.{name}", str(listen.address)
            takes = f"{Takes.GOES_ON}{newer}" if newer else Takes.CLOSED
            yield _change("-", path, Effect.LISTENER, takes, old=at)
    for name, listen in after.items():
        path, at, older = f"listen.{name}", str(listen.address), was.get(listen.address)
        if name in before:
            yield from _moved(before[name], listen, older, will.get(before[name].address))
            yield from _listener_keys(before[name], listen, not_ours)
        elif older and older not in after:
            yield _change("~", path, Effect.LISTENER, Takes.RENAMED, old=older, new=name)
            yield from _listener_keys(before[older], listen, not_ours)
        else:
            takes = f"{Takes.TAKEN_OVER}{older}" if older else Takes.OPENED
            yield _change("+", path, Effect.LISTENER, takes, new=at)


def _moved(old: Listen, new: Listen, older: str | None, newer: str | None) -> Iterator[Change]:
    """Tell of another address: whose it was (`older`), and whose the old one will be (`newer`)."""
    if old.address != new.address:
        begin = f"{Takes.TAKEN_OVER}{older}" if older else Takes.OPENED_FIRST
        end = f"the old one {Takes.GOES_ON}{newer}" if newer else Takes.CLOSED_AFTER
        path, takes = f"listen.{new.name}", f"{begin}, {end}"
        was, will = str(old.address), str(new.address)
        yield _change("!", path, Effect.LISTENER, takes, old=was, new=will)


def _listener_keys(old: Listen, new: Listen, not_ours: Collection[Address]) -> Iterator[Change]:
    keys = ("backlog", "mode", "user", "group", "on_stop")
    for key, was, will in _differing(old, new, keys):
        takes, effect = Takes.SET, Effect.LISTENER
        if key == "on_stop":
            takes = Takes.AT_STOP
        elif key == "backlog" and new.address.traits.is_datagram:
            takes, effect = Takes.NO_BACKLOG, Effect.NONE
        elif key != "backlog" and new.address in not_ours:
            takes, effect = Takes.NOT_OURS, Effect.NONE
        yield _change("~", f"listen.{new.name}.{key}", effect, takes, old=was, new=will)


def _services(old: Config, new: Config) -> Iterator[Change]:
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    for name in before:
        if name not in after:
            yield _change("-", f"service.{name}", Effect.STOP, Takes.STOPPED)
    for name, service in after.items():
        if name not in before:
            many = count(service.workers, "worker") if service.workers else "a worker a processor"
            yield _change("+", f"service.{name}", Effect.START, f"{many} {Takes.STARTED}")
            continue
        for key in filter(ServiceConfig.__struct_fields__.__contains__, settings.SERVICE):
            if getattr(before[name], key) != getattr(service, key):
                yield from _service_key(before[name], service, key)


def _service_key(old: ServiceConfig, new: ServiceConfig, key: str) -> Iterator[Change]:
    path, what = f"service.{new.name}.{key}", _EFFECTS.get(key, Effect.RELOAD)
    before, after = getattr(old, key), getattr(new, key)
    rolls = what is Effect.RELOAD
    mark, takes = ("!", Takes.ROLLING) if rolls else ("~", Takes.NO_WORKERS)
    if key in _TABLES:
        for part, was, will in _differing(before, after, _TABLES[key]):
            yield _change(mark, f"{path}.{part}", what, takes, old=was, new=will)
    elif key in _SECRET:
        names = ", ".join(sorted({name for name, _ in set(before) ^ set(after)}))
        yield _change(mark, path, what, takes, more=f" ({names})")
    else:
        was, will = _written(before, key), _written(after, key)
        yield _change(mark, path, what, takes, old=was, new=will)


def _returns(rollbacks: Mapping[str, int], new: Config) -> Iterator[Change]:
    for name in (service.name for service in new.services if service.name in rollbacks):
        more = f" rollback to {rollbacks[name]} → this config"
        yield _change("!", f"service.{name}", Effect.RELOAD, Takes.ROLLING, more=more)


def _releases(old: Config, new: Config, standing: Standing) -> Iterator[Change]:
    """Tell of each `cwd` that is written as before and leads elsewhere, as a link has moved."""
    before = {service.name: service.cwd for service in old.services}
    for service in new.services:
        if before.get(service.name, "") == service.cwd and service.name not in standing.rollbacks:
            was, will = standing.directories(service)
            if was != will:
                path = f"{RELEASE}{service.name}"
                yield _change("!", path, Effect.RELOAD, Takes.ROLLING, old=was, new=will)


def _rest(old: Config, new: Config) -> Iterator[Change]:
    at_next, at_once = (Effect.NONE, Takes.NEXT_START), (Effect.POLICY, Takes.NO_WORKERS)
    for key, was, will in _differing(old, new, ("name",)):
        yield _change("~", key, *at_next, old=was, new=will)
    for key, was, will in _differing(old, new, ("together",)):
        yield _change("~", f"rollout.{key}", *at_once, old=was, new=will)
    for key, was, will in _differing(old, new, _OF_THE_END):
        yield _change("~", key, *at_once, old=was, new=will)
    for name, takes in (("control", at_once), ("logs", at_next)):
        before, after = getattr(old, name), getattr(new, name)
        for key, was, will in _differing(before, after, before.__struct_fields__):
            yield _change("~", f"{name}.{key}", *takes, old=was, new=will)
    if old.dev != new.dev:
        yield _change("~", "dev", Effect.NONE, Takes.FOR_DEV)


def _differing(old: object, new: object, keys: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the keys whose values differ, with both as a person would write them."""
    for key in keys:
        was, will = getattr(old, key), getattr(new, key)
        if was != will:
            yield key, _written(was, key), _written(will, key)


def _change(
    mark: str, path: str, effect: Effect, takes: str,
    *, old: str | None = None, new: str | None = None, more: str = "",
) -> Change:  # fmt: skip
    """Return a change whose text has both values, the one that there is, or what `more` says."""
    kind = {"+": Kind.ADD, "-": Kind.REMOVE}.get(mark, Kind.CHANGE)
    both = old is not None and new is not None
    values = f" {old} → {new}" if both else f" {old or new}" if old or new else more
    text = f"{mark} {path}{values}: {takes}"
    return Change(kind=kind, path=path, effect=effect, old=old, new=new, text=text)


def _written(value: object, key: str = "") -> str:
    """Return a value as a person would write it in the config."""
    match value:
        case None | "":
            return "none" if key == "venv" and value == "" else "default"
        case bool():
            return shown(value)
        case int() if key in _NUMBERS:
            return _NUMBERS[key](value)
        case float():
            return f"{value:g} s"
        case tuple():
            return shown(list(value))
        case ReleaseName():
            return shown(list(value.argv) or {"file": value.file})
        case _:
            return str(value)

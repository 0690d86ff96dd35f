"""List the changes from one Config to the next, and the effect of each. Changes nothing.

Marks: + added, - removed, ~ changed without a restart, ! changed, and workers are replaced for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec.structs import fields, replace

from sockmgr.api.types import Change, Effect, Kind, Plan
from sockmgr.config import app_keys, limit_keys, settings
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
_EFFECTS = {
    "workers": Effect.SCALE,
    "after": Effect.POLICY,
    "ready": Effect.POLICY,
    "ready_timeout": Effect.POLICY,
    "healthy": Effect.POLICY,
    "stop_signal": Effect.POLICY,
    "drain_timeout": Effect.POLICY,
    "max_age": Effect.POLICY,
    "max_rss": Effect.POLICY,
    "max_requests": Effect.POLICY,
    "max_cpu_time": Effect.POLICY,
    "when_down": Effect.POLICY,
    "rollout": Effect.POLICY,
    "release": Effect.POLICY,
    "hooks": Effect.POLICY,
}
# Keys of a service that are tables, whose own keys are compared one by one.
_TABLES = {
    "http": app_keys.HTTP,
    "rollout": settings.ROLLOUT,
    "hooks": settings.HOOKS,
    "resources": limit_keys.RESOURCES,
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
    that in which it would run from a reload on; they are "" if that is not known.
    """

    not_ours: Collection[Address] = ()
    rollbacks: Mapping[str, int] = field(default_factory=dict)
    directories: Callable[[ServiceConfig], tuple[str, str]] = lambda _: ("", "")


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

    def changes(wanted: Config) -> tuple[Change, ...]:
        returns = _returns(standing.rollbacks, wanted)
        moved = _releases(running, wanted, standing)
        return (*diff(running, wanted, standing.not_ours), *returns, *moved)

    if text is None:
        return Plan(changes=changes(own()), applies=True)
    wanted = parse(text.encode(), file=file, outside=outside)
    try:
        applies = own() == wanted
    except ConfigError:  # the manager's own file is broken or gone, but `text` is not
        applies = False
    return Plan(changes=changes(wanted), applies=applies)


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
    return Config(
        name=old.name,
        logs=new.logs,
        listen=tuple(listen for name, listen in listens.items() if name in used),
        services=tuple(services.values()),
        together=new.together,
        control=new.control,
        variables=tuple(sorted(below(old.variables, *stay - fresh) | below(new.variables, *fresh))),
        dev=new.dev,
        **{key: getattr(new, key) for key in _OF_THE_END},
    )


def without(config: Config, service: str) -> Config:
    """Return `config` without this service, and the listeners that only it has."""
    others = tuple(each for each in config.services if each.name != service)
    return accepted(config, replace(config, services=others), (service,))


def addresses(config: Config, services: Collection[str]) -> set[Address]:
    """Return the addresses at which these services listen."""
    listens, mine = config.listens(), (each for each in config.services if each.name in services)
    return {listens[name].address for service in mine for name in service.listen}


def changed(old: Config, new: Config) -> frozenset[str]:
    """Return the services of `new` that are new or changed, or whose listeners changed."""

    def whole(config: Config) -> dict[str, object]:
        listens = config.listens()
        return {s.name: (s, [listens[name] for name in s.listen]) for s in config.services}

    before, after = whole(old), whole(new)
    return frozenset(name for name, what in after.items() if before.get(name) != what)


# --- Listeners ---------------------------------------------------------------------------------


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
            yield Change(
                kind=Kind.REMOVE, path=path, effect=Effect.LISTENER, old=at,
                text=f"- {path} {at}: {takes}",
            )  # fmt: skip
    for name, listen in after.items():
        path, at, older = f"listen.{name}", str(listen.address), was.get(listen.address)
        if name in before:
            yield from _moved(before[name], listen, older, will.get(before[name].address))
            yield from _listener_keys(before[name], listen, not_ours)
        elif older and older not in after:
            yield _changed("~", path, older, name, Effect.LISTENER, Takes.RENAMED)
            yield from _listener_keys(before[older], listen, not_ours)
        else:
            takes = f"{Takes.TAKEN_OVER}{older}" if older else Takes.OPENED
            yield Change(
                kind=Kind.ADD, path=path, effect=Effect.LISTENER, new=at,
                text=f"+ {path} {at}: {takes}",
            )  # fmt: skip


def _moved(old: Listen, new: Listen, older: str | None, newer: str | None) -> Iterator[Change]:
    """Tell of another address: whose it was (`older`), and whose the old one will be (`newer`)."""
    if old.address != new.address:
        begin = f"{Takes.TAKEN_OVER}{older}" if older else Takes.OPENED_FIRST
        end = f"the old one {Takes.GOES_ON}{newer}" if newer else Takes.CLOSED_AFTER
        both = (str(old.address), str(new.address))
        yield _changed("!", f"listen.{new.name}", *both, Effect.LISTENER, f"{begin}, {end}")


def _listener_keys(old: Listen, new: Listen, not_ours: Collection[Address]) -> Iterator[Change]:
    for key in ("backlog", "mode", "user", "group", "on_stop"):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            both = (_written(before, key), _written(after, key))
            takes, effect = Takes.SET, Effect.LISTENER
            if key == "on_stop":
                takes = Takes.AT_STOP
            elif key == "backlog" and new.address.traits.is_datagram:
                takes, effect = Takes.NO_BACKLOG, Effect.NONE
            elif key != "backlog" and new.address in not_ours:
                takes, effect = Takes.NOT_OURS, Effect.NONE
            yield _changed("~", f"listen.{new.name}.{key}", *both, effect, takes)


# --- Services ----------------------------------------------------------------------------------


def _services(old: Config, new: Config) -> Iterator[Change]:
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    for name in before:
        if name not in after:
            path = f"service.{name}"
            text = f"- {path}: {Takes.STOPPED}"
            yield Change(kind=Kind.REMOVE, path=path, effect=Effect.STOP, text=text)
    for name, service in after.items():
        if name not in before:
            path = f"service.{name}"
            many = count(service.workers, "worker") if service.workers else "a worker a processor"
            text = f"+ {path}: {many} {Takes.STARTED}"
            yield Change(kind=Kind.ADD, path=path, effect=Effect.START, text=text)
            continue
        for key, what in _keys(before[name], service):
            yield from _service_key(before[name], service, key, what)


def _keys(old: ServiceConfig, new: ServiceConfig) -> Iterator[tuple[str, Effect]]:
    """Yield the keys that differ, each with the effect of the change."""
    for key in (each.name for each in fields(ServiceConfig)):
        if getattr(old, key) != getattr(new, key):
            yield key, _EFFECTS.get(key, Effect.RELOAD)


def _service_key(
    old: ServiceConfig, new: ServiceConfig, key: str, what: Effect
) -> Iterator[Change]:
    path = f"service.{new.name}.{key}"
    before, after = getattr(old, key), getattr(new, key)
    rolls = what is Effect.RELOAD
    mark, takes = ("!", Takes.ROLLING) if rolls else ("~", Takes.NO_WORKERS)
    if key in _TABLES:
        for part in _TABLES[key]:
            was, will = getattr(before, part), getattr(after, part)
            if was != will:
                both = (_written(was, part), _written(will, part))
                yield _changed(mark, f"{path}.{part}", *both, what, takes)
    elif key in _SECRET:
        names = ", ".join(sorted({name for name, _ in set(before) ^ set(after)}))
        text = f"! {path} ({names}): {Takes.ROLLING}"
        yield Change(kind=Kind.CHANGE, path=path, effect=what, text=text)
    else:
        yield _changed(mark, path, _written(before, key), _written(after, key), what, takes)


def _returns(rollbacks: Mapping[str, int], new: Config) -> Iterator[Change]:
    for name in (service.name for service in new.services if service.name in rollbacks):
        text = f"! service.{name} rollback to {rollbacks[name]} → this config: {Takes.ROLLING}"
        kind, effect = Kind.CHANGE, Effect.RELOAD
        yield Change(kind=kind, path=f"service.{name}", effect=effect, text=text)


def _releases(old: Config, new: Config, standing: Standing) -> Iterator[Change]:
    """Tell of each `cwd` that is written as before and leads elsewhere, as a link has moved."""
    before = {service.name: service.cwd for service in old.services}
    for service in new.services:
        if before.get(service.name, "") == service.cwd and service.name not in standing.rollbacks:
            was, will = standing.directories(service)
            if was != will:
                path = f"{RELEASE}{service.name}"
                yield _changed("!", path, was, will, Effect.RELOAD, Takes.ROLLING)


def _rest(old: Config, new: Config) -> Iterator[Change]:
    if old.name != new.name:
        yield _changed("~", "name", old.name, new.name, Effect.NONE, Takes.NEXT_START)
    if old.together != new.together:
        both = (shown(old.together), shown(new.together))
        yield _changed("~", "rollout.together", *both, Effect.POLICY, Takes.NO_WORKERS)
    for key in _OF_THE_END:
        was, will = getattr(old, key), getattr(new, key)
        if was != will:
            yield _changed("~", key, _written(was), _written(will), Effect.POLICY, Takes.NO_WORKERS)
    for name, takes in (("control", Takes.NO_WORKERS), ("logs", Takes.NEXT_START)):
        before, after = getattr(old, name), getattr(new, name)
        what = Effect.NONE if name == "logs" else Effect.POLICY
        for key in (each.name for each in fields(before)):
            both = (_written(getattr(before, key), key), _written(getattr(after, key), key))
            if both[0] != both[1]:
                yield _changed("~", f"{name}.{key}", *both, what, takes)
    if old.dev != new.dev:
        text = f"~ dev: {Takes.FOR_DEV}"
        yield Change(kind=Kind.CHANGE, path="dev", effect=Effect.NONE, text=text)


def _changed(mark: str, path: str, old: str, new: str, effect: Effect, takes: str) -> Change:
    text = f"{mark} {path} {old} → {new}: {takes}"
    return Change(kind=Kind.CHANGE, path=path, effect=effect, old=old, new=new, text=text)


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

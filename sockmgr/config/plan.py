"""What changes from one Config to the next, and what that takes. Changes nothing.

Marks: + added, - removed, ~ changed without a restart, ! changed, and workers are replaced for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from msgspec.structs import fields

from sockmgr.api.types import Change, Effect, Kind, Plan
from sockmgr.config.app_keys import Http
from sockmgr.config.config import Config, ServiceConfig, parse
from sockmgr.config.document import shown
from sockmgr.config.spec import Listen, Rollout
from sockmgr.config.values import SIGNALS
from sockmgr.errors import ConfigError

# Keys of a service that workers need not be replaced for. All others go into what is spawned.
_EFFECTS = {
    "workers": Effect.SCALE,
    "ready": Effect.POLICY,
    "ready_timeout": Effect.POLICY,
    "stop_signal": Effect.POLICY,
    "drain_timeout": Effect.POLICY,
    "max_age": Effect.POLICY,
    "rollout": Effect.POLICY,
}
_SECRET = ("env",)  # values are not for the terminal or the journal


def plan(running: Config, own: Callable[[], Config], text: str | None, file: str) -> Plan:
    """Return what changes from `running` to the config `text` of `file`.

    `own` reads the config that a reload would use, which is also meant by a `text` of None.
    """
    if text is None:
        return Plan(changes=diff(running, own()), applies=True)
    wanted = parse(text.encode(), file=file)
    try:
        applies = own() == wanted
    except ConfigError:  # its own file is broken or gone, which is not what was asked
        applies = False
    return Plan(changes=diff(running, wanted), applies=applies)


def diff(old: Config, new: Config) -> tuple[Change, ...]:
    """Return every change from `old` to `new`: listeners first, then services, then the rest."""
    return (*_listeners(old, new), *_services(old, new), *_rest(old, new))


def accepted(old: Config, new: Config, committed: Collection[str]) -> Config:
    """Return `old` with what `new` says of the services `committed`; one not in `new` is gone."""
    known = {service.name for service in new.services}
    services = {s.name: s for s in old.services if s.name in known or s.name not in committed}
    services |= {s.name: s for s in new.services if s.name in committed}
    listens = old.listens()
    for service in new.services:
        if service.name in committed:
            listens |= {name: new.listens()[name] for name in service.listen}
    used = {name for service in services.values() for name in service.listen}
    return Config(
        name=old.name,
        listen=tuple(listen for name, listen in listens.items() if name in used),
        services=tuple(services.values()),
        dev=new.dev,
    )


def changed(old: Config, new: Config) -> frozenset[str]:
    """Return the services of `new` that `old` does not have just so, their listeners included."""

    def whole(config: Config) -> dict[str, object]:
        listens = config.listens()
        return {s.name: (s, [listens[name] for name in s.listen]) for s in config.services}

    before, after = whole(old), whole(new)
    return frozenset(name for name, what in after.items() if before.get(name) != what)


# --- Listeners ---------------------------------------------------------------------------------


def _listeners(old: Config, new: Config) -> Iterator[Change]:
    before, after = old.listens(), new.listens()
    for name, listen in before.items():
        if name not in after:
            path, was = f"listen.{name}", str(listen.address)
            text = f"- {path} {was}: closed when nothing waits there any more"
            kind, effect = Kind.REMOVE, Effect.LISTENER
            yield Change(kind=kind, path=path, effect=effect, old=was, text=text)
    for name, listen in after.items():
        if name not in before:
            path, will = f"listen.{name}", str(listen.address)
            text = f"+ {path} {will}: opened before any worker starts"
            kind, effect = Kind.ADD, Effect.LISTENER
            yield Change(kind=kind, path=path, effect=effect, new=will, text=text)
        else:
            yield from _listener(before[name], listen)


def _listener(old: Listen, new: Listen) -> Iterator[Change]:
    path = f"listen.{new.name}"
    if old.address != new.address:
        takes = "the new address is opened first, the old one closed after a rolling reload"
        both = (str(old.address), str(new.address))
        yield _changed("!", path, *both, Effect.LISTENER, takes)
    for key in ("backlog", "mode", "user", "group"):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            write = _mode if key == "mode" else _written
            both = (write(before), write(after))
            yield _changed("~", f"{path}.{key}", *both, Effect.LISTENER, "set on the open socket")


# --- Services ----------------------------------------------------------------------------------


def _services(old: Config, new: Config) -> Iterator[Change]:
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    for name in before:
        if name not in after:
            path = f"service.{name}"
            text = f"- {path}: drained and stopped"
            yield Change(kind=Kind.REMOVE, path=path, effect=Effect.STOP, text=text)
    for name, service in after.items():
        if name not in before:
            path = f"service.{name}"
            text = f"+ {path}: {service.workers} worker{'s' * (service.workers > 1)} started"
            yield Change(kind=Kind.ADD, path=path, effect=Effect.START, text=text)
            continue
        for key, what in _keys(before[name], service):
            yield from _service_key(before[name], service, key, what)


def _keys(old: ServiceConfig, new: ServiceConfig) -> Iterator[tuple[str, Effect]]:
    """Return the keys that differ, each with what that takes."""
    for key in (field.name for field in fields(ServiceConfig)):
        if getattr(old, key) != getattr(new, key):
            yield key, _EFFECTS.get(key, Effect.RELOAD)


def _service_key(
    old: ServiceConfig, new: ServiceConfig, key: str, what: Effect
) -> Iterator[Change]:
    path = f"service.{new.name}.{key}"
    before, after = getattr(old, key), getattr(new, key)
    mark, takes = ("!", "rolling reload") if what is Effect.RELOAD else ("~", "no restart")
    if isinstance(before, Rollout | Http):
        for part in (field.name for field in fields(before)):
            was, will = getattr(before, part), getattr(after, part)
            if was != will:
                both = (_written(was), _written(will))
                yield _changed(mark, f"{path}.{part}", *both, what, takes)
    elif key in _SECRET:
        names = ", ".join(sorted({name for name, _ in set(before) ^ set(after)}))
        text = f"! {path} ({names}): rolling reload"
        yield Change(kind=Kind.CHANGE, path=path, effect=what, text=text)
    else:
        yield _changed(mark, path, _written(before, key), _written(after, key), what, takes)


def _rest(old: Config, new: Config) -> Iterator[Change]:
    if old.name != new.name:
        takes = "from the next start of the manager"
        yield _changed("~", "name", old.name, new.name, Effect.NONE, takes)
    if old.dev != new.dev:
        text = "~ dev: for `sockmgr dev` only"
        yield Change(kind=Kind.CHANGE, path="dev", effect=Effect.NONE, text=text)


def _changed(mark: str, path: str, old: str, new: str, effect: Effect, takes: str) -> Change:
    text = f"{mark} {path} {old} → {new}: {takes}"
    return Change(kind=Kind.CHANGE, path=path, effect=effect, old=old, new=new, text=text)


def _mode(mode: int | None) -> str:
    return "default" if mode is None else f"{mode:04o}"


def _written(value: object, key: str = "") -> str:
    """Return a value as a person would write it in the config."""
    match value:
        case None | "":
            return "default"
        case bool():
            return shown(value)
        case int() if key == "umask":
            return f"{value:03o}"
        case int() if key == "stop_signal":
            return next((name for name, number in SIGNALS.items() if number == value), str(value))
        case float():
            return f"{value:g} s"
        case tuple():
            return shown(list(value))
        case _:
            return str(value)

"""The configuration as frozen values: TOML or arguments in, Config or one ConfigError out.

Looks at nothing outside the text: users, paths and programs are left to launch/resolve.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import tomli
from msgspec.structs import replace

from sockmgr.config import address, placeholder, positions, settings, values
from sockmgr.config.app_keys import Http
from sockmgr.config.document import Source, Value
from sockmgr.config.shape import Keys
from sockmgr.config.spec import (
    Accept,
    Accepting,
    Delay,
    Listen,
    Notify,
    Policy,
    Ready,
    Rollout,
    Scheme,
)
from sockmgr.errors import ConfigError

_OF_APP = ("python", "interface", "http", "preload")
_OF_COMMAND = ("listen_pid", "preset", "stop_signal")
# A process without listeners shows nothing, so by default ready is a guess, and it has to live on
# for much longer than an import takes before what it replaces is told to stop.
PLAIN_DELAY, PLAIN_PROBATION = 1.0, 10.0


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the config says of one service; None and "" leave the choice to preset and default.

    Either `command` or `app` is given; `python`, `interface`, `http` and `preload` belong to
    `app`.
    `rollout.start_concurrency` 0 means twice as many as there are cores.
    """

    name: str
    command: tuple[str, ...] = ()
    app: str = ""
    python: str = ""
    interface: str = ""
    http: Http = msgspec.field(default_factory=Http)
    preload: bool = False
    listen: tuple[str, ...] = ()
    workers: int = 1
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()
    inherit_env: bool = True
    umask: int | None = None
    user: str = ""
    group: str = ""
    limits: tuple[tuple[str, int, int], ...] = ()
    listen_pid: bool = True
    ready: Ready = msgspec.field(default_factory=Accepting)
    ready_timeout: float = 60.0
    stop_signal: int | None = None
    drain_timeout: float = 30.0
    max_age: float | None = None
    hang_timeout: float | None = None
    preset: str = "auto"
    rollout: Rollout = msgspec.field(default_factory=lambda: Rollout(start_concurrency=0))
    accept: Accept = Accept.SHARED
    policy: Policy = Policy.ROUND_ROBIN
    max_connections: int | None = None


class Dev(msgspec.Struct, frozen=True, kw_only=True):
    """What `sockmgr dev` watches: directories, and patterns of file names to leave out or add.

    `error_page` None is for HTTP, as far as that is known, and for clients on this machine.
    `force_polling` None is for file systems that others may write to, unheard by this kernel.
    """

    watch: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    error_page: bool | None = None
    livereload: bool = False
    force_polling: bool | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one manager runs, in the order of the file."""

    name: str
    listen: tuple[Listen, ...]
    services: tuple[ServiceConfig, ...]
    dev: Dev = msgspec.field(default_factory=Dev)

    def listens(self) -> dict[str, Listen]:
        """Return the listeners by name."""
        return {listen.name: listen for listen in self.listen}


def parse(data: bytes, *, file: str) -> Config:
    """Return the config in `data`; `file` is its path, for errors and relative directories."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        at = positions.position(before, len(before))
        raise ConfigError(
            f"{file}:{at}: byte {data[error.start]:#04x} is not UTF-8",
            do="TOML is always UTF-8: save the file in that encoding",
        ) from None
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        where = f"{file}:{error.lineno}:{error.colno}"
        raise ConfigError(f"{where}: this is not TOML: {error.msg}", do=_hint(text)) from None
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all measure
        raise ConfigError(f"{file}: this is not usable TOML: {error}") from None
    return _config(Value(Source(file, text), (), document))


def from_arguments(
    listen: Sequence[str],
    command: Sequence[str],
    *,
    name: str = "",
    service: str = "web",
    keys: Mapping[str, object] | None = None,
) -> Config:
    """Return the config of one service from the command line.

    `listen` are texts like `http=tcp://127.0.0.1:8000`; `keys` are more keys of the service, and
    of its rollout, by their names in the file. Errors name the argument instead of a line.
    """
    arguments: dict[positions.Path, str] = {
        ("name",): "--name",
        ("service", service, "command"): "COMMAND",
    }
    addresses: dict[str, object] = {}
    for text in listen:
        listener, equals, where = text.partition("=")
        if not equals or not re.fullmatch(placeholder.NAME, listener):
            raise ConfigError(
                f"--listen {text}: it has no name",
                do=f"write NAME=ADDRESS, for example --listen http={text}",
            )
        if listener in addresses:
            raise ConfigError(f"--listen {text}: the name {listener} is given twice")
        addresses[listener] = where
        arguments["listen", listener] = f"--listen {text}"
    rollout: dict[str, object] = {}
    table: dict[str, object] = {"rollout": rollout}
    table |= {} if "app" in (keys or {}) else {"command": list(command)}
    for key, raw in (keys or {}).items():
        path = ("rollout", key) if key in settings.ROLLOUT else (key,)
        arguments["service", service, *path] = "--" + key.replace("_", "-")
        (rollout if key in settings.ROLLOUT else table)[key] = raw
    document: dict[str, object] = {"listen": addresses, "service": {service: table}}
    document |= {"name": name} if name else {}
    return _config(Value(Source("command line", arguments=arguments), (), document))


def _hint(text: str) -> str:
    if text.startswith("\ufeff"):
        return "the file begins with a byte order mark: save it without"
    return "texts need quotes, arrays commas; tables begin with [name]"


def _config(document: Value) -> Config:
    top = document.table((*settings.TOP, *settings.TABLES))
    listens = _listens(top["listen"]) if "listen" in top else ()
    if "service" not in top or not top["service"].entries():
        raise ConfigError(
            f"{document.source.file}: it has no service",
            do='add a table [service.NAME] with a command, for example command = ["uvicorn", ...]',
        )
    tables = top["service"].entries()
    names = tuple(listen.name for listen in listens)
    services = tuple(_service(name, value, names, len(tables)) for name, value in tables.items())
    for service in services:
        _check_dispatch(tables[service.name], service, listens)
    _one_service_a_listener(top, services, names)
    _apps_take_streams(top, services, listens)
    dev = top["dev"].table(settings.DEV) if "dev" in top else {}
    return Config(
        name=settings.TOP["name"].read(top["name"]) if "name" in top else "sockmgr",
        listen=listens,
        services=services,
        dev=Dev(**_read(settings.DEV, dev)),
    )


def _read(known: Keys, given: Mapping[str, Value]) -> dict[str, Any]:
    """Return what the given values mean, in the order in which the keys are known."""
    return {name: key.read(given[name]) for name, key in known.items() if name in given}


def _one_service_a_listener(
    top: Mapping[str, Value], services: Sequence[ServiceConfig], names: Sequence[str]
) -> None:
    users: dict[str, str] = {}
    for service in services:
        for name in service.listen:
            if name in users:
                value = top["service"].entries()[service.name]
                value = value.entries().get("listen", value)
                raise value.refused(
                    f"takes the listener {name}, which service.{users[name]} has",
                    do="one listener serves one service: give this one a listener of its own",
                )
            users[name] = service.name
    for name in names:
        if name not in users:
            raise (
                top["listen"]
                .entries()[name]
                .refused(
                    "is used by no service, so clients would wait there for ever",
                    do=f'add "{name}" to the `listen` of a service, or remove it',
                )
            )


def _apps_take_streams(
    top: Mapping[str, Value], services: Sequence[ServiceConfig], listens: Sequence[Listen]
) -> None:
    datagrams = {each.name for each in listens if each.address.scheme is Scheme.UDP}
    for service in services:
        if service.app and (found := datagrams.intersection(service.listen)):
            raise (
                top["service"]
                .entries()[service.name]
                .refused(
                    f"serves HTTP, and its listener {min(found)} is of UDP",
                    do="give that one to a service of its own",
                )
            )


# --- Listeners ---------------------------------------------------------------------------------


def _listens(value: Value) -> tuple[Listen, ...]:
    listens: list[Listen] = []
    for name, entry in value.entries().items():
        if not re.fullmatch(placeholder.NAME, name) or len(name) > 64:
            raise entry.refused(
                "is not a name for a listener",
                do="allowed: letters, digits, _, - and ., beginning with a letter or _",
            )
        listen = _listen(name, entry)
        for other in listens:
            # Port 0, too: a listener is known by its address, whatever the kernel makes of it.
            if other.address == listen.address:
                raise entry.refused(
                    f"has the address {listen.address}, which listen.{other.name} has",
                    do="give it an address of its own",
                )
        listens.append(listen)
    return tuple(listens)


def _listen(name: str, value: Value) -> Listen:
    is_table = isinstance(value.raw, dict)
    keys = value.table(settings.LISTENER) if is_table else {"address": value}
    if "address" not in keys:
        raise value.refused("has no address", do=f"add address = ...; allowed: {address.FORMS}")
    at = keys["address"]
    where, options = settings.LISTENER["address"].read(at)
    for option, text in options.items():
        if option in keys or option not in settings.UNIX_ONLY:
            raise at.wrong("mode=0660, user=NAME and group=NAME after the ?, each given once")
        keys[option] = Value(at.source, at.path, text)
    for option in settings.UNIX_ONLY:
        if option in keys and where.scheme is not Scheme.UNIX:
            raise keys[option].refused("has no meaning here", do="only unix:// paths have it")
    return Listen(name=name, **_read(settings.LISTENER, keys) | {"address": where})


# --- Services ----------------------------------------------------------------------------------


def _service(name: str, value: Value, listeners: Sequence[str], services: int) -> ServiceConfig:
    if not isinstance(value.raw, dict):
        raise value.refused(
            "is not a table", do=f"write the keys of a service under [service.NAME], not {name} = "
        )
    values.NAME.read(Value(value.source, value.path, name))
    keys = value.table(settings.SERVICE, settings.PLANNED)
    _check_program(value, keys)
    fields = _read(settings.SERVICE, keys)
    fields["listen"] = _service_listen(value, fields.get("listen"), listeners, services)
    if "command" in keys:
        _check_placeholders(keys["command"], fields["listen"])
    elif not fields["listen"]:
        raise value.refused("has no listener for its app", do='add one, listen = ["NAME"]')
    fields["ready"] = _ready_or_default(keys, fields)
    if isinstance(fields["ready"], Delay) and not fields["listen"]:
        fields["rollout"] = _with_time_to_fail(keys, fields)
    if "cwd" in fields:
        fields["cwd"] = _beside(value.source.file, fields["cwd"])
    return ServiceConfig(name=name, **fields)


def _check_program(service: Value, keys: Mapping[str, Value]) -> None:
    """Demand a command or an app, and no key that belongs to the other."""
    if "command" in keys and "app" in keys:
        raise keys["app"].refused("stands beside command", do="remove one of them")
    if "command" not in keys and "app" not in keys:
        do = 'add command = ["PROGRAM", "ARGUMENT", ...], or app = "shop.main:app"'
        raise service.refused("has no command", do=do)
    one, others = ("command", _OF_APP) if "command" in keys else ("app", _OF_COMMAND)
    for key in others:
        if key in keys:
            do = f"remove it, or give {'an app' if one == 'command' else 'a command'} instead"
            raise keys[key].refused(f"has no meaning beside {one}", do=do)


def _service_listen(
    value: Value, names: tuple[str, ...] | None, listeners: Sequence[str], services: int
) -> tuple[str, ...]:
    if names is None:
        if services > 1 and listeners:
            raise value.refused(
                "does not say which listeners it has",
                do=f'add listen = ["{listeners[0]}"], or listen = [] if it has none',
            )
        return tuple(listeners)
    known = ", ".join(listeners) or "none: the table [listen] is empty"
    for index, name in enumerate(names):
        if name not in listeners:
            raise (
                value.entries()["listen"]
                .child(index, name)
                .wrong(f"the name of a listener ({known})")
            )
    return names


def _check_placeholders(command: Value, listen: Sequence[str]) -> None:
    for index, raw in enumerate(command.texts()):
        for name in placeholder.names([raw]):
            if name not in listen:
                raise command.child(index, raw).wrong(
                    f"{{NAME}} with a listener of this service ({', '.join(listen) or 'none'}); "
                    f"if the text itself is meant, write {{{{{name}}}}}"
                )


def _check_dispatch(value: Value, service: ServiceConfig, listens: Sequence[Listen]) -> None:
    keys = value.entries()
    if service.accept is not Accept.DISPATCH:
        if service.policy is not Policy.ROUND_ROBIN or service.max_connections is not None:
            name = "policy" if service.max_connections is None else "max_connections"
            raise keys[name].refused("has no meaning here", do='add accept = "dispatch"')
        return
    if named := placeholder.names(service.command):
        raise keys["command"].refused(
            f"names the listener {named[0]}, which its workers do not get",
            do="use a program that takes the connections passed to it: dispatch-protocol.md",
        )
    for listen in listens:
        if listen.name in service.listen and listen.address.scheme is Scheme.UDP:
            raise keys["accept"].refused(
                f"has nothing to accept on the listener {listen.name}: UDP has no connections",
                do='let a service of its own have it, with accept = "shared"',
            )


def _ready_or_default(keys: Mapping[str, Value], fields: Mapping[str, Any]) -> Ready:
    ready: Ready | None = fields.get("ready")
    if ready is None and "app" in keys:
        return Notify()
    if ready is None:
        return Accepting() if fields["listen"] else Delay(seconds=PLAIN_DELAY)
    if isinstance(ready, Accepting) and not fields["listen"]:
        raise keys["ready"].wrong(
            '"notify", { delay = "2s" } or { exec = ["COMMAND"] }: a service without listeners '
            "has none to accept on"
        )
    return ready


def _with_time_to_fail(keys: Mapping[str, Value], fields: Mapping[str, Any]) -> Rollout:
    """Return the rollout of what is only guessed to be ready; a probation that is given stands."""
    rollout: Rollout = fields.get("rollout", Rollout(start_concurrency=0))
    if "rollout" in keys and "probation" in keys["rollout"].entries():
        return rollout
    return replace(rollout, probation=PLAIN_PROBATION)


def _beside(file: str, directory: str) -> str:
    """Return `directory` as seen from the directory of `file`, so that `check` may run anywhere."""
    folder, slash, _ = file.rpartition("/")
    return f"{folder}{slash}{directory}" if slash and directory[:1] != "/" else directory

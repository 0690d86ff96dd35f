"""Read a config, from TOML or from arguments, into frozen values; or raise one ConfigError.

Looks at nothing outside the text: launch/resolve checks users, paths and programs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import tomli
from msgspec.structs import replace

from sockmgr.config import company, listeners, placeholder, positions, probe_keys, settings, shape
from sockmgr.config.app_keys import Http
from sockmgr.config.document import Source, Value
from sockmgr.config.hooks import Hooks
from sockmgr.config.manager_keys import NAMED, TOP, Control, Dev, Logs
from sockmgr.config.outside import NOTHING, Outside, below, taken_in
from sockmgr.config.spec import (
    Accept,
    Accepting,
    Delay,
    Listen,
    Notify,
    Policy,
    Ready,
    Rollout,
    TakenOver,
)
from sockmgr.config.values import NAME
from sockmgr.errors import ConfigError, SockmgrError

_OF_APP = ("python", "interface", "http", "preload")
MOST_PROCESSORS = 256  # of a machine whose processors are not counted yet
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_OF_COMMAND = ("listen_pid", "preset", "stop_signal")
# A process without listeners shows nothing, so by default `ready` is a guess. Its probation is much
# longer than an import takes, so that broken code ends before the old workers are stopped.
PLAIN_DELAY, PLAIN_PROBATION = 1.0, 10.0


class ServiceConfig(TakenOver, frozen=True, kw_only=True):
    """One service of the config; None and "" leave a choice to the preset or a default.

    `workers` 0: as many as there are processors for the manager.
    Either `command` or `app` is given. `python`, `interface`, `http` and `preload` go with `app`. A
    `rollout.start_concurrency` of 0 means twice the number of cores.
    """

    name: str
    command: tuple[str, ...] = ()
    app: str = ""
    python: str = ""
    interface: str = ""
    http: Http = msgspec.field(default_factory=Http)
    listen: tuple[str, ...] = ()
    workers: int = 1
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()
    inherit_env: bool = True
    unbuffered: bool = True
    venv: str | None = None
    limits: tuple[tuple[str, int, int], ...] = ()
    listen_pid: bool = True
    ready: Ready = msgspec.field(default_factory=Accepting)
    stop_signal: int | None = None
    hang_timeout: float | None = None
    preset: str = "auto"
    rollout: Rollout = msgspec.field(default_factory=lambda: Rollout(start_concurrency=0))
    hooks: Hooks = msgspec.field(default_factory=Hooks)

    @property
    def workers_at_most(self) -> int:
        """How many workers a generation may have, on whichever machine."""
        return self.workers or MOST_PROCESSORS


class Config(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything that one manager runs; listeners and services are in the order of the file.

    `together`: the services of one reload change over together, or all go back. `variables` are the
    places at which it names variables, such as `service.web.workers`, and their names.
    """

    # Beside these fields its __dict__ has the source: two that say the same are equal, however they
    # are written, and one that was stored knows no place.

    name: str = "sockmgr"
    stop_delay: float = 0.0
    ready_file: str = ""
    listen: tuple[Listen, ...]
    services: tuple[ServiceConfig, ...]
    together: bool = False
    control: Control = msgspec.field(default_factory=Control)
    logs: Logs = msgspec.field(default_factory=Logs)
    variables: tuple[tuple[str, str], ...] = ()
    dev: Dev = msgspec.field(default_factory=Dev)

    def listens(self) -> dict[str, Listen]:
        return {listen.name: listen for listen in self.listen}

    @contextlib.contextmanager
    def placing(self, *table: str) -> Iterator[None]:
        """Have an error that begins with a key of this table say first where that key is.

        It tells the names of the variables that the value comes from instead of the value. Whatever
        it was, a program that is missing, say, it is a ConfigError: the config cannot be used.
        """
        try:
            yield
        except SockmgrError as error:
            begin = rf"({re.escape('.'.join(table))}\.([a-z_]+(?:\.[a-z_]+)*))(?: = .*?(?=: ))?"
            key, source = re.match(begin, error.what, re.DOTALL), self.__dict__.get("source")
            what = error.what
            if source is not None and key is not None:
                place = source.place((*table, *key[2].split(".")), key=False)
                if names := {name for _, name in below(self.variables, key[1])}:
                    what = f"{key[1]} ({', '.join(sorted(names))}){what[key.end() :]}"
                what = f"{place}: {what}"
            raise ConfigError(what, means=error.means, do=error.do) from error


def parse(data: bytes, *, file: str, outside: Outside = NOTHING) -> Config:
    """Return the config in `data`; `file` is its path, for errors and relative paths.

    `outside` is what the names of variables and files in it lead to. Raises ConfigError.
    """
    try:
        document, variables = taken_in(_document(data, file), outside)
        return _config(document, variables)
    except RecursionError:  # a key such as a.b.c.d, of a thousand parts
        raise ConfigError(f"{file}: its tables are nested too deeply") from None


def name(data: bytes, *, file: str) -> str:
    """Return the manager's name in a config; only who runs it may have what the rest names."""
    entries = _document(data, file).entries()
    return str(TOP["name"].read(entries["name"])) if "name" in entries else "sockmgr"


def _document(data: bytes, file: str) -> Value:
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
        do = "texts need quotes, arrays commas; tables begin with [name]"
        if text.startswith("\ufeff"):
            do = "the file begins with a byte order mark: save it without"
        raise ConfigError(f"{where}: this is not TOML: {error.msg}", do=do) from None
    except (ValueError, RecursionError) as error:  # a number that is too long, too deep a nesting
        raise ConfigError(f"{file}: this is not usable TOML: {error}") from None
    return Value(Source(file, text), (), document)


def from_arguments(
    listen: Sequence[str],
    command: Sequence[str],
    *,
    name: str = "",
    keys: Mapping[str, object] | None = None,
) -> Config:
    """Return the config of one service, `web`, from the command line; raise ConfigError.

    `listen` are texts such as `http=tcp://127.0.0.1:8000`, `keys` more keys of the service and of
    its rollout, under their names in a file. Errors name the argument instead of a line.
    """
    arguments: dict[positions.Path, str] = {
        ("name",): "--name",
        ("service", "web", "command"): "COMMAND",
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
        arguments["service", "web", *path] = "--" + key.replace("_", "-")
        (rollout if key in settings.ROLLOUT else table)[key] = raw
    document: dict[str, object] = {"listen": addresses, "service": {"web": table}}
    document |= {"name": name} if name else {}
    return _config(Value(Source("command line", arguments=arguments), (), document))


def _config(document: Value, variables: tuple[tuple[str, str], ...] = ()) -> Config:
    top = document.table((*TOP, *NAMED))
    listens = listeners.listens(top["listen"]) if "listen" in top else ()
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
        probe_keys.check(tables[service.name], service, listens)
    given = shape.read(TOP, top)
    given |= given.pop("rollout", {})
    company.check(top, services, listens, together=given.get("together", False))
    config = Config(**given, listen=listens, services=services, variables=variables)
    config.__dict__["source"] = document.source
    return config


def _service(name: str, value: Value, listeners: Sequence[str], services: int) -> ServiceConfig:
    if not isinstance(value.raw, dict):
        raise value.refused(
            "is not a table", do=f"write the keys of a service under [service.NAME], not {name} = "
        )
    NAME.read(Value(value.source, value.path, name))
    keys = value.table(settings.SERVICE)
    _check_program(value, keys)
    fields = shape.read(settings.SERVICE, keys)
    fields["listen"] = _service_listen(value, fields.get("listen"), listeners, services)
    if "command" in keys:
        _check_placeholders(keys["command"], fields["listen"])
    elif not fields["listen"]:
        raise value.refused("has no listener for its app", do='add one, listen = ["NAME"]')
    if fields.get("prometheus_multiproc") and _METRICS in dict(fields.get("env", ())):
        raise keys["prometheus_multiproc"].refused(
            f"sets {_METRICS}, which stands in env, too", do="remove one of them"
        )
    fields["ready"] = _ready_or_default(keys, fields)
    if isinstance(fields["ready"], Delay) and not fields["listen"]:
        fields["rollout"] = _with_time_to_fail(keys, fields)
    if "cwd" in fields:
        fields["cwd"] = value.source.beside(fields["cwd"])
    return ServiceConfig(name=name, **fields)


def _check_program(service: Value, keys: Mapping[str, Value]) -> None:
    """Require a command or an app, and refuse keys that go with the other."""
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
    if "command" in keys and "max_requests" in keys:
        raise keys["max_requests"].refused(
            "stands beside command, whose requests nobody but itself can count",
            do="use max_rss, max_cpu_time or max_age, or an app",
        )


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
    for item, name in zip(value.entries()["listen"].items(""), names, strict=True):
        if name not in listeners:
            raise item.wrong(f"the name of a listener ({known})")
    return names


def _check_placeholders(command: Value, listen: Sequence[str]) -> None:
    for word in command.items(""):
        for name in placeholder.names([word.text()]):
            if name not in listen:
                raise word.wrong(
                    f"{{NAME}} with a listener of this service ({', '.join(listen) or 'none'}); "
                    "if the text itself is meant, write {{NAME}}"
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
        if listen.name in service.listen and listen.address.traits.is_datagram:
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
    """Return the rollout of a service whose `ready` is a guess; a given probation is kept."""
    rollout: Rollout = fields.get("rollout", Rollout(start_concurrency=0))
    if "rollout" in keys and "probation" in keys["rollout"].entries():
        return rollout
    return replace(rollout, probation=PLAIN_PROBATION)

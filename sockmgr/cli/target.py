"""Which manager a verb talks to: the options that all verbs share which are clients of one."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sockmgr.cli import streams
from sockmgr.client.client import LIVENESS_TIMEOUT, Client
from sockmgr.client.connection import NoManagerError
from sockmgr.client.finding import find_control, given_control, live_controls
from sockmgr.errors import ConfigError, SockmgrError
from sockmgr.kernel import regular

if TYPE_CHECKING:
    from sockmgr.api.types import ServiceStatus
    from sockmgr.config.config import Config

DEFAULT_CONFIG = "sockmgr.toml"
CONFIG_MAX = 1 << 24  # bytes
COMPLETION_TIMEOUT = 1.0  # seconds: a person waits, and the names in the config are good enough


def duration(text: str) -> float:
    """Return the seconds of a text like 90, 1m30s or 500ms; raise click.BadParameter."""
    from sockmgr.config import document

    seconds = document.seconds(text) or document.seconds(f"{text}s")
    if not seconds:
        raise click.BadParameter(f'"{text}" is no time: allowed are seconds, or a text like 1m30s')
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The values of the shared options; `timeout` is in seconds."""

    config: Path | None
    control: str | None
    as_json: bool
    timeout: float | None

    def client(self) -> Client:
        """Return a client, for a verb that only looks; raise NoManagerError if there is no manager.

        A note on stderr says so if the manager reads another config than the one meant. If the
        config in this directory cannot be read, a note says that too, and the only manager that
        runs is meant.
        """
        try:
            client = self._meant()
        except ConfigError as error:
            if self.config is not None:
                raise
            narrate(f"note: {error.what}: so it says of no manager that it is meant")
            return Client(find_control(self.control, None), timeout=self.timeout)
        if stranger := client.stranger():
            narrate(f"note: {stranger}")
        return client

    def find(self) -> Client:
        """Return a client, for a verb that changes something; raise NoManagerError or ConfigError.

        The manager has to be named, by a config or its socket. The client refuses to ask a manager
        for a change if it reads another config.
        """
        client = self._meant()
        if self.file is None and not control(self.control):
            raise ConfigError(
                f"there is no {DEFAULT_CONFIG} here to say which manager is meant",
                means=f"none was asked; the only one that runs here is {_described(client)}",
                do=f"if it is meant: {shlex.join(['sockmgr', *sys.argv[1:]])} --control "
                f"{shlex.quote(str(client.path))}",
            )
        return client

    def _meant(self) -> Client:
        """Return a client of the manager that is named, or of the only one; raise as find()."""
        name = self.name()
        # The manager at a socket that is named is meant, whatever its config.
        if self.file is None or control(self.control):
            return Client(find_control(self.control, name), timeout=self.timeout)
        file = absolute(self.file)
        try:
            return Client(find_control(None, name, file), timeout=self.timeout, file=file)
        except NoManagerError as error:
            others = ", ".join(str(path) for path in live_controls(None))
            what = f"{error.what} (which is the name in {self.file})"
            more = f"; others run: {others}, to be named with --control" if others else ""
            raise NoManagerError(what, means=error.means, do=f"{error.do}{more}") from None

    @property
    def file(self) -> Path | None:
        """The config that says which manager is meant: that of -c, or the one in this directory."""
        if self.config is None and not control(self.control) and Path(DEFAULT_CONFIG).exists():
            return Path(DEFAULT_CONFIG)
        return self.config

    def name(self) -> str | None:
        """Return the manager's name in `file`, None without a file; raise ConfigError."""
        if self.file is None:
            return None
        from sockmgr.config.config import name

        try:
            return name(read(self.file), file=str(self.file))
        except ConfigError as error:
            if self.config is not None:
                raise
            means = "so it is not known which manager is meant, and none was asked"
            do = f"{error.do}; or name the manager with --control"
            raise ConfigError(error.what, means=means, do=do) from error

    def tell(self, answer: dict[str, object], line: str) -> None:
        """Print an answer on stdout, in JSON or as a line for a person."""
        if self.as_json:
            import json

            line = json.dumps(answer)
        streams.echo(line)


def read_config(path: Path) -> Config:
    """Return the config in a file; raise ConfigError if it cannot be used."""
    from sockmgr.config import config
    from sockmgr.launch.surroundings import here

    return config.parse(read(path), file=str(path), outside=here())


def read(path: Path) -> bytes:
    """Return the bytes of a config file; raise ConfigError if it cannot be read."""
    try:
        if path.resolve().parts[:2] == ("/", "proc"):  # our own descriptors: /dev/stdin, <(command)
            return path.read_bytes()
        return regular.read(path, CONFIG_MAX)
    except OSError as error:
        do = "correct the path"
        if path.name == DEFAULT_CONFIG:
            do = "name another file with -c, or run one service with --listen and a command"
        raise ConfigError(f"cannot read {path}: {error.strerror}", do=do) from error


def absolute(path: Path) -> Path:
    """Return the absolute path of a file; raise ConfigError if our directory has been deleted."""
    try:
        return path.absolute()
    except FileNotFoundError:  # getcwd(3)
        raise ConfigError(
            f"{path} is in this directory, which has been deleted",
            do="change to one that is there, or give the whole path",
        ) from None


def control(given: str | None) -> Path | None:
    """Return the absolute path of the control socket that was named, None if none was.

    It is absolute because workers find the notify socket beside it from another directory.
    """
    path = given_control(given)
    return path.absolute() if path else None


def options(verb: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to the function of a verb, whose first argument becomes a Target."""

    @click.option(
        "-c", "--config", type=click.Path(path_type=Path), help="The manager's config file."
    )
    @click.option(
        "--control", type=click.Path(readable=False), help="The manager's control socket."
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @click.option("--timeout", type=duration, help="Wait no longer than this.")
    @functools.wraps(verb)
    def with_target(
        *arguments: Any,
        config: Path | None,
        control: str | None,
        as_json: bool,
        timeout: float | None,
        **others: Any,
    ) -> None:
        target = Target(config=config, control=control, as_json=as_json, timeout=timeout)
        verb(target, *arguments, **others)

    return with_target


def complete_service(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the services that a shell may complete: those that run, or those of the config."""
    given = context.params.get(parameter.name or "")
    before = given if isinstance(given, tuple) else ()  # the argument of `reload` takes several
    known = list(_running(context.params)) or _configured(context.params)
    return [name for name in known if name.startswith(incomplete) and name not in before]


def complete_worker(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the workers that a shell may complete: those of each generation that serves."""
    del parameter
    known = [
        worker.name(name)
        for name, service in _running(context.params).items()
        for worker in service.workers
        if worker.generation == service.generation
    ]
    return [name for name in known if name.startswith(incomplete)]


def _described(client: Client) -> str:
    """Say which manager it is that nobody has named, and what it reads if it tells."""
    try:
        read = Client(client.path, timeout=LIVENESS_TIMEOUT).status(sizes=False).manager.config
    except SockmgrError:
        return f"that at {client.path}"
    return f"that at {client.path}, which " + (f"reads {read}" if read else "was given no file")


def _running(params: Mapping[str, Any]) -> dict[str, ServiceStatus]:
    config, control = params.get("config"), params.get("control")
    where = Target(config=config, control=control, as_json=False, timeout=COMPLETION_TIMEOUT)
    try:
        return where._meant().status(sizes=False).services
    except SockmgrError:  # no message may appear while a line is being completed
        return {}


def _configured(params: Mapping[str, Any]) -> list[str]:
    try:
        found = read_config(params.get("config") or Path(DEFAULT_CONFIG))
    except SockmgrError:
        return []
    return [service.name for service in found.services]


def narrate(text: str) -> None:
    """Say on stderr what is going on."""
    streams.echo(text, err=True)

"""Which manager a verb talks to, and how: the options that all verbs of a client share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sockmgr.cli import streams
from sockmgr.client.client import (
    SOCKET_VARIABLE,
    Client,
    NoManagerError,
    find_control,
    live_controls,
)
from sockmgr.errors import ConfigError, SockmgrError
from sockmgr.kernel import regular

if TYPE_CHECKING:
    from sockmgr.api.types import ServiceStatus
    from sockmgr.config.config import Config

DEFAULT_CONFIG = "sockmgr.toml"
CONFIG_MAX = 1 << 24  # bytes
COMPLETION_TIMEOUT = 1.0  # a person waits, and the names in the config will do


def duration(text: str) -> float:
    """Return the seconds that a text like 1m30s says."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text, re.ASCII)
    seconds = sum(
        float(part) * unit
        for part, unit in zip(found.groups() if found else (), (3600, 60, 1), strict=False)
        if part
    )
    if seconds <= 0:
        raise click.BadParameter(f'"{text}" is no time: allowed are seconds, or a text like 1m30s')
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the shared options say."""

    config: Path | None
    control: str | None
    as_json: bool
    timeout: float | None

    def client(self) -> Client:
        """Return a client of the manager that is meant; say so if its config is another file.

        Raises NoManagerError if there is none. Of a file that names no manager, since it cannot be
        read, and was not given, only that is said.
        """
        try:
            client = self.find()
        except ConfigError as error:
            if self.config is not None:
                raise
            narrate(f"note: {error.what}: so it says of no manager that it is meant")
            return Client(find_control(self.control, None), timeout=self.timeout)
        if stranger := client.stranger():
            narrate(f"note: {stranger}")
        return client

    def find(self) -> Client:
        """Return the same without a word, to change something: refused if the config is another."""
        if self.file is None:
            return Client(find_control(self.control, None), timeout=self.timeout)
        name = self.name()
        if control(self.control):  # which is meant then, whatever its config
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
        """The config that says which manager is meant: the given one, or what is in this place."""
        if self.config is None and not control(self.control) and Path(DEFAULT_CONFIG).exists():
            return Path(DEFAULT_CONFIG)
        return self.config

    def name(self) -> str | None:
        """Return the name in that config; raise ConfigError if it cannot be read."""
        if self.file is None:
            return None
        try:
            return read_config(self.file).name
        except ConfigError as error:
            if self.config is not None:
                raise
            means = "which manager is meant cannot be told, and none was asked"
            do = f"{error.do}; or name the manager with --control"
            raise ConfigError(error.what, means=means, do=do) from error


def read_config(path: Path) -> Config:
    """Return what the file says; raise ConfigError if it cannot be used."""
    from sockmgr.config import config

    return config.parse(read(path), file=str(path))


def read(path: Path) -> bytes:
    """Return what is in a config file; raise ConfigError if it cannot be read."""
    try:
        if path.resolve().parts[:2] == ("/", "proc"):  # of our own: /dev/stdin, <(command)
            return path.read_bytes()
        return regular.read(path, CONFIG_MAX)
    except OSError as error:
        do = "correct the path"
        if path.name == DEFAULT_CONFIG:
            do = "name another file with -c, or run one service with --listen and a command"
        raise ConfigError(f"cannot read {path}: {error.strerror}", do=do) from error


def absolute(path: Path) -> Path:
    """Return the whole path of a file; raise ConfigError if it is relative to what is gone."""
    try:
        return path.absolute()
    except FileNotFoundError:  # getcwd(3)
        raise ConfigError(
            f"{path} is in this directory, which has been deleted",
            do="change to one that is there, or give the whole path",
        ) from None


def control(given: str | None) -> Path | None:
    """Return where a manager is to listen for the verbs; None: where its name says.

    Absolute, for workers that run elsewhere find its notify socket by it.
    """
    path = given or os.environ.get(SOCKET_VARIABLE)
    return Path(path).absolute() if path else None


def options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give `verb` the shared options; it is called with a Target first."""

    @click.option("-c", "--config", type=click.Path(path_type=Path), help="Its config file.")
    @click.option("--control", type=click.Path(), metavar="PATH", help="Its control socket.")
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
    before = given if isinstance(given, tuple) else ()  # of an argument that takes several
    known = list(_running(context.params)) or _configured(context.params)
    return [name for name in known if name.startswith(incomplete) and name not in before]


def complete_worker(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the workers that a shell may complete: those of the generations that serve."""
    del parameter
    return [name for name in _serving(context.params) if name.startswith(incomplete)]


def _serving(params: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}@{worker.generation}.{worker.slot}"
        for name, service in _running(params).items()
        for worker in service.workers
        if worker.generation == service.generation
    ]


def _running(params: Mapping[str, Any]) -> dict[str, ServiceStatus]:
    config, control = params.get("config"), params.get("control")
    where = Target(config=config, control=control, as_json=False, timeout=COMPLETION_TIMEOUT)
    try:
        return where.find().status(sizes=False).services
    except SockmgrError:  # nobody can be told anything while a line is being completed
        return {}


def _configured(params: Mapping[str, Any]) -> list[str]:
    try:
        found = read_config(params.get("config") or Path(DEFAULT_CONFIG))
    except SockmgrError:
        return []
    return [service.name for service in found.services]


def narrate(text: str) -> None:
    """Say on stderr what is going on."""
    streams.tell(text, err=True)

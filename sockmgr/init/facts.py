"""What is known of a project before anything is guessed, and what a guess consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A directory: `files` are texts by path from there, with / between the parts.

    `programs` are what could be run: bare names for what workers find by itself, relative paths
    for what the project has, such as `.venv/bin/uvicorn`, and absolute ones for what is found
    although it is not in the PATH.
    """

    directory: str
    files: Mapping[str, str]
    programs: frozenset[str] = frozenset()


class Interface(StrEnum):
    """How a Python server calls an application."""

    ASGI = "ASGI"
    WSGI = "WSGI"
    AIOHTTP = "aiohttp"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A Python application: `name` in `module`, which is imported from `path`, seen from `cwd`.

    A factory is called for the application. `framework` is "" for a plain callable.
    """

    interface: Interface
    framework: str
    file: str
    module: str
    name: str
    factory: bool = False
    cwd: str = ""
    path: str = ""

    @property
    def target(self) -> str:
        """Return the application as servers are told of it."""
        return f"{self.module}:{self.name}"

    def __str__(self) -> str:
        what = self.framework or f"{self.interface} application"
        made = f"`{self.name}()`" if self.factory else f"`{self.name}`"
        return f"{what} {made} in {self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A process that a project also runs, which has no clients; `text` is what its line says."""

    name: str
    text: str
    command: tuple[str, ...]
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What to run. Without `takes_socket` it opens `port` itself, and only one may run at a time.

    `address` is where it listened until now, "" if only the port is known. `why` are the reasons,
    `todo` what a person must still do, `others` what else was found, `beside` what else is run.
    """

    command: tuple[str, ...]
    found: str
    why: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    takes_socket: bool = True
    port: int = 8000
    workers: int = 2
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()
    address: str = ""
    beside: tuple[Beside, ...] = ()

    @property
    def listens_on(self) -> str:
        """Where to listen: as until now, or for this machine only."""
        return self.address or f"tcp://127.0.0.1:{self.port}"

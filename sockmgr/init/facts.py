"""The input and the output of guessing: a project, its applications, and a guess."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A directory: `files` are the texts of its files, by their paths from there.

    `programs` are what could be run: a bare name is in the PATH of the workers, a relative path in
    the project (`.venv/bin/uvicorn`), and an absolute path in neither. `root` is the path of the
    directory, "" if nobody asks for it.
    """

    directory: str
    files: Mapping[str, str]
    programs: frozenset[str] = frozenset()
    root: str = ""

    def relative(self, path: str) -> str:
        """Return a directory as seen from the project, as it is if it is absolute elsewhere."""
        root = f"{self.root}/" if self.root else ""
        below = "." if path == self.root else path.removeprefix(root)
        short = posixpath.normpath(below) if below else ""
        return "" if short == "." else short

    def path_to(self, program: str, cwd: str) -> str:
        """Return the path, from `cwd`, of a program in an environment here, "" if none."""
        for folder in (cwd, ""):
            for environment in (".venv", "venv", "env"):
                inner = f"{environment}/bin/{program}"
                if (f"{folder}/{inner}" if folder else inner) in self.programs:
                    up = "../" * len(cwd.split("/")) if cwd and not folder else ""
                    return f"{up}{inner}"
        return ""

    def has(self, program: str, cwd: str) -> bool:
        """Return whether the program could be started now."""
        return bool(self.path_to(program, cwd)) or program in self.programs

    def call(self, program: str, cwd: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the words that call a program, and what a person has to do before that works."""
        if self.has(program, cwd):
            return (self.path_to(program, cwd) or program,), ()
        if "uv.lock" in self.files and "uv" in self.programs:
            return ("uv", "run", program), ()
        return (program,), (f"{program} is not installed here: pip install {program}",)


class Interface(StrEnum):
    """How a Python server calls an application."""

    ASGI = "ASGI"
    WSGI = "WSGI"
    AIOHTTP = "aiohttp"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A Python application: `name` in `module`, in the source file `file`.

    `cwd` is the directory to start in, and `path`, relative to it, the one to import from. `name`
    is a function that returns the application if `factory`. `framework` is "" for a plain callable.
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
        """The application as servers take it: `module:name`."""
        return f"{self.module}:{self.name}"

    def __str__(self) -> str:
        what = self.framework or f"{self.interface} application"
        made = f"`{self.name}()`" if self.factory else f"`{self.name}`"
        return f"{what} {made} in {self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A process that the project also runs and that has no clients; `text` is its line."""

    name: str
    text: str
    command: tuple[str, ...]
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The command to run, and `found`, what it was guessed from.

    Without `takes_socket` the program opens `port` itself, so only one may run at a time. `address`
    is where the project listened until now, "" if only the port is known. `why` are the reasons,
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

"""Write the command of a server for a project, or rewrite one that was for another manager.

config/servers.py has the servers and the meaning of their options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sockmgr.config import address, placeholder, servers
from sockmgr.config.servers import Server
from sockmgr.init.facts import App, Interface
from sockmgr.init.line import Line, only_port, port_number
from sockmgr.launch import launchers
from sockmgr.launch.launchers import CommandLine
from sockmgr.launch.shell import Word

# Of the servers for an interface the first that is declared or installed is taken.
PREFERRED = {
    Interface.ASGI: ("uvicorn", "granian", "hypercorn"),
    Interface.WSGI: ("gunicorn", "uwsgi", "granian"),
    Interface.AIOHTTP: ("gunicorn",),
}
DISTRIBUTIONS = {"pyuwsgi": "uwsgi"}  # the distribution -> the program, if they differ
_COUNT = re.compile(r"(\d{1,4})|\$\{\w+:?-(\d{1,4})\}")  # a number, or a variable's default
_ANY_HOST = "0.0.0.0"  # noqa: S104 - read from a file, not bound here


def command(server: str, word: Sequence[str], app: App) -> tuple[str, ...]:
    """Return the command by which `server` serves `app`; `word` are the words that call it."""
    called = f"{app.target}()" if app.factory else app.target
    factory = ("--factory",) if app.factory else ()
    match server:
        case "uvicorn":
            return (*word, "--fd", "{http}", *factory, app.target)
        case "hypercorn":
            return (*word, "--bind", "fd://{http}", called)
        case "granian":
            return (*word, "--interface", app.interface.lower(), *factory, app.target)
        case "uwsgi":
            return (*word, "-w", called)
    if app.interface is Interface.AIOHTTP:
        return (*word, "-k", "aiohttp.GunicornWebWorker", called)
    return (*word, "-k", "gthread", "--threads", "8", called)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The command line of a server without the options whose work sockmgr does.

    `head` are its words up to the server's name, `args` the others. `address` is where it was to
    listen, "" if the line does not say it. `workers` is its number of processes, 0 if only a shell
    could know it; then `count` is the word for it. `dropped` are the options that were left out.
    """

    server: Server
    launch: CommandLine
    head: tuple[Word, ...]
    args: tuple[Word, ...]
    workers: int = 0
    count: str = ""
    address: str = ""
    dropped: tuple[str, ...] = ()

    def words(self, head: Sequence[str] = ()) -> tuple[Word, ...]:
        """Return the whole command, with the listener if the server does not find it by itself."""
        finds = self.server.takes_listen_fds or self.server.name == "granian"
        named = () if finds else self.server.names_fd
        listener = (Word(word, word) for word in (text.replace("{}", "{http}") for text in named))
        own = tuple(Word(word, word) for word in head) or self.head
        return (*own, *listener, *map(_literal, self.args))


def rewrite(line: Line) -> Rewritten | None:
    """Return a line without its addresses and numbers of workers; None if it is no known server."""
    launch = launchers.read([word.text for word in line.words])
    server = servers.named(launch.name, launch.args)
    if server is None or not server.takes_socket or launch.line:
        return None
    at = len(launch.before) + 1
    if launch.argv() != tuple(word.text for word in line.words):
        return None
    kept: list[Word] = []
    taken: list[tuple[str, str]] = []
    options = (*server.binding, *server.counting, *_own(server))
    words = iter(line.words[at:])
    for word in words:
        option, value, whole = _split(word.text, options)
        if not option:
            kept.append(word)
        elif whole and option not in server.own:  # the value is the next word
            taken.append((option, next(words, Word("", "")).text))
        else:
            taken.append((option, value))
    counts = [value for option, value in taken if option in server.counting]
    found = _COUNT.fullmatch(counts[-1]) if counts else None
    return Rewritten(
        server=server,
        launch=launch,
        head=tuple(map(_literal, line.words[:at])),
        args=tuple(kept),
        workers=int(found[1] or found[2]) if found else 0,
        count=counts[-1] if counts and not found else "",
        address=_address(taken, server, line.port or 8000),
        dropped=tuple(f"{option} {value}".strip() for option, value in taken),
    )


def _literal(word: Word) -> Word:
    return Word(placeholder.literal(word.raw), placeholder.literal(word.text), not only_port(word))


def _split(word: str, options: Sequence[str]) -> tuple[str, str, bool]:
    """Return option, value, and whether the value is the next word; "" for none of `options`."""
    for option in options:
        if word == option:
            return option, "", True
        if option.startswith("--") and word.startswith(f"{option}="):
            return option, word[len(option) + 1 :], False
        if not option.startswith("--") and word.startswith(option):
            return option, word[len(option) :], False
    return "", "", False


# --- Where it was to listen ----------------------------------------------------------------------


def _address(taken: Sequence[tuple[str, str]], server: Server, port: int) -> str:
    """Return the address in the options of a line as a URL, "" if they name no host."""
    host = ""
    for option, value in taken:
        if option not in server.binding:
            continue
        if option in ("--host", "-o") or (server.name == "daphne" and option in ("-b", "--bind")):
            host = value
        elif option in ("--port", "-p"):
            port = port_number(value) or port
        elif path := _unix(option, value):
            return _usable(f"unix://{path}")
        elif found := re.fullmatch(r"(?:\w+://)?(\[[^\]]*\]|[^:]*):(\$?[\w${}:-]+)", value):
            host = found[1] or _ANY_HOST
            port = port_number(found[2]) or port
    host = f"[{host}]" if ":" in host and host[:1] != "[" else host
    return _usable(f"tcp://{host}:{port}")


def _usable(url: str) -> str:
    """Return an address, "" if no config can have it, as with a host that only a shell knows."""
    try:
        address.parse(url)
    except ValueError:
        return ""
    return url


def _unix(option: str, value: str) -> str:
    """Return the path of a unix socket in the value of an option, "" if it is none."""
    path = value.removeprefix("unix:").removeprefix("//")
    is_path = value.startswith("unix:") or option in ("--uds", "-u", "--unix-socket")
    return path if is_path and re.fullmatch(r"/[\w./-]{1,100}", path) else ""


def kinds(dropped: Sequence[str], server: Server) -> Iterator[str]:
    """Yield why the dropped options are not needed, a sentence for each kind of option."""
    own = [one for one in dropped if _split(one.partition(" ")[0], _own(server))[0]]
    rest = [one for one in dropped if one not in own]
    if rest:
        yield f"{', '.join(rest)}: left out, sockmgr has the socket and counts the workers"
    if own:
        yield f"{', '.join(own)}: left out, that is for sockmgr to do, or for one process alone"


def _own(server: Server) -> tuple[str, ...]:
    return tuple(one.rstrip("=") for one in server.own)

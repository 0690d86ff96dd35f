"""Guess by a Procfile how the `web` process is run with a socket, and what else is run."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from sockmgr.config import servers
from sockmgr.config.servers import Work
from sockmgr.init import application, line, node
from sockmgr.init import servers as written
from sockmgr.init.facts import Beside, Guess, Project
from sockmgr.init.line import Line
from sockmgr.launch import launchers
from sockmgr.launch.launchers import Way

FILES = ("Procfile", "Procfile.dev")
MOST = 100  # lines that are read
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PACKAGE = re.compile(r"(?:npm|yarn|pnpm) (?:run )?start")
_UNKNOWN = "is not a server that sockmgr knows how to give a socket"
TO_DO = (
    "it opens its port itself, so a reload stops the old before it starts the new. To lose "
    "nothing, let it take the socket: as descriptor 3, as {http} in the command, or by "
    "LISTEN_FDS; then give it [listen] and remove `exclusive`"
)


def guess(project: Project) -> Guess | None:
    """Return how the web process is run, or None if no Procfile has it."""
    for name in FILES:
        below = sorted(one for one in project.files if one.endswith(f"/{name}"))
        for path in (name, *below):
            lines = [found[1:] for found in processes(project.files.get(path, ""))]
            web = next((text for kind, text in lines if kind == "web"), None)
            if web is not None and (found := served(project, web, path)):
                return _with_others(project, found, lines, web, path)
    return None


def processes(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number, the name and the command of each line of a Procfile."""
    for number, each in enumerate(text.splitlines()[:MOST], 1):
        name, colon, command = (part.strip() for part in each.partition(":"))
        if colon and command and _NAME.fullmatch(name):
            yield number, name, command


def _with_others(
    project: Project, found: Guess, lines: list[tuple[str, str]], web: str, path: str
) -> Guess:
    others = list(found.others)
    todo, beside = list(found.todo), list[Beside]()
    lines.remove(("web", web))
    for name, text in lines:
        if name == "release":
            todo.append(f"run `{text}` (`release` in {path}) once a deploy, before the reload")
        elif name == "web":
            others.append(f"a second `web` in {path}, which is not run: {text}")
        else:
            beside.append(alone(project, name, text, path.rpartition("/")[0]))
    return replace(found, todo=tuple(todo), others=tuple(others), beside=tuple(beside))


def alone(project: Project, name: str, text: str, folder: str) -> Beside:
    """Return how the line of a process without clients is run, in the directory `folder`."""
    parsed = line.read(text)
    cwd = _cwd(folder, parsed) if parsed else folder
    if parsed is None or not parsed.words or parsed.piped or parsed.before or parsed.beside:
        return Beside(name=name, text=text, command=("sh", "-c", text), cwd=cwd)
    if parsed.needs_shell:
        command: tuple[str, ...] = ("sh", "-c", line.joined(parsed))
    else:
        own = project.path_to(parsed.argv[0], cwd)
        command = (own or parsed.argv[0], *parsed.argv[1:])
    return Beside(name=name, text=text, command=command, cwd=cwd, env=parsed.env)


# --- The line of the web process -----------------------------------------------------------------


def served(project: Project, text: str, path: str, found: str = "") -> Guess | None:
    """Return how the line of a process with clients is run; None if it is no line.

    `path` is that of the file with the line, in whose directory it runs; `found` is what is said of
    the line, by default that it is `web`.
    """
    folder = path.rpartition("/")[0]
    found = found or f"`web` in {path}: {text}"
    parsed = line.read(text)
    if parsed is None:
        return None
    cwd = _cwd(folder, parsed)
    if _PACKAGE.fullmatch(" ".join(parsed.argv)) and (guess := node.guess(project)):
        return guess
    if parsed.argv[:1] in (("node",), ("nodejs",)):
        return node.run(project, parsed, cwd=cwd, found=found)
    if guess := _instead(project, parsed, cwd):
        return replace(guess, found=found)
    rewritten = written.rewrite(parsed)
    if rewritten is None:
        return _kept(parsed, cwd=cwd, found=found)
    return _served(project, parsed, rewritten, cwd=cwd, found=found)


def _cwd(folder: str, parsed: Line) -> str:
    cwd = posixpath.normpath(posixpath.join(folder, parsed.cwd))
    return "" if cwd == "." else cwd


def _instead(project: Project, parsed: Line, cwd: str) -> Guess | None:
    """Return how the application of a server that takes no socket is served; None for others."""
    launch = launchers.read(parsed.argv)
    server = servers.named(launch.name, launch.args)
    if server is None or not server.refused:
        return None
    files = {posixpath.normpath(posixpath.join(cwd, word)) for word in launch.args[1:]}
    guess = application.guess(project, server.framework, files)
    if guess is None:
        return None
    return replace(guess, why=(f"{server.name} {server.refused}", *guess.why))


def _served(
    project: Project, parsed: Line, rewritten: written.Rewritten, *, cwd: str, found: str
) -> Guess:
    """Return how a known server is run: without its address, for which the manager listens."""
    head, missing = _head(project, rewritten, cwd)
    words = rewritten.words(head)
    port = parsed.port or 8000
    argv = tuple(line.with_port(word.text, port) for word in words)
    if parsed.setup or parsed.sets or parsed.redirections or any(word.expands for word in words):
        first, *others = (word.raw for word in words)
        # A shell finds it by its PATH, which need not have it.
        outside = (p for p in project.programs if p[:1] == "/" and p.endswith(f"/{first}"))
        raw = (next(outside, first), *others)
        argv = ("sh", "-c", line.joined(parsed, raw))
    why = [*written.kinds(rewritten.dropped, rewritten.server)]
    if rewritten.count:
        why.append(f"how many processes {rewritten.count} is cannot be told here; 2 is a guess")
    if parsed.piped:
        why.append(
            f"its output went to `{parsed.piped}`: left out, `sockmgr logs` has what workers print"
        )
    return Guess(
        command=argv,
        found=found,
        env=parsed.env,
        cwd=cwd,
        port=port,
        address=rewritten.address,
        workers=rewritten.workers or 2,
        why=tuple(why),
        todo=(*missing, *_around(parsed)),
    )


def _head(
    project: Project, rewritten: written.Rewritten, cwd: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words that call the server, () for those of the line; and what a person must do.

    A launcher that only finds the program in the project's environment (`poetry run`) is left out
    if the environment is there.
    """
    launch = rewritten.launch
    launcher, direct = launch.before[:1], launch.name == launch.program
    if not launcher and direct:
        return project.call(launch.name, cwd)
    finders = ("poetry", "pipenv", "pdm", "hatch")
    if not launch.chosen or launcher[0] not in finders or len(launch.before) != 2:
        return (), ()
    if own := project.path_to(launch.name, cwd):
        return (own,), ()
    if launch.way is not Way.CLOSES and launcher[0] in project.programs:
        return (), ()
    return project.call(launch.name, cwd)


def _kept(parsed: Line, *, cwd: str, found: str) -> Guess:
    """Return how an unknown program is run: as the line says, on a port that it opens itself."""
    port = parsed.port or 8000
    if not parsed.words or parsed.piped:
        command: tuple[str, ...] = ("sh", "-c", parsed.text)
        if parsed.cwd and parsed.words:
            cwd = cwd.removesuffix(parsed.cwd).rstrip("/")
        why, around = f"a shell's line {_UNKNOWN}", parsed.beside[:0]
    else:
        argv = tuple(line.with_port(word, port) for word in parsed.argv)
        command = ("sh", "-c", line.joined(parsed)) if parsed.needs_shell else argv
        why, around = _why(parsed), _around(parsed)
    return Guess(
        command=command,
        found=found,
        env=(*(pair for pair in parsed.env if pair[0] != "PORT"), ("PORT", str(port))),
        cwd=cwd,
        port=port,
        takes_socket=False,
        workers=1,
        why=(why,),
        todo=(TO_DO, *around),
    )


def _why(parsed: Line) -> str:
    launch = launchers.read(parsed.argv)
    server = servers.named(launch.name, launch.args)
    if server and server.refused:
        return f"{server.name} {server.refused}"
    if server and server.work is Work.HTTP and not server.takes_socket:
        return f"{launch.name} cannot be given a socket by its command line"
    return f"{launch.name} {_UNKNOWN}"


def _around(parsed: Line) -> tuple[str, ...]:
    todo = []
    if parsed.before:
        commands = " and ".join(f"`{one}`" for one in parsed.before)
        todo.append(f"run {commands} before, once a deploy")
    if parsed.beside:
        commands = " and ".join(f"`{one}`" for one in parsed.beside)
        todo.append(f"give {commands} a service: the line left that running beside")
    return tuple(todo)

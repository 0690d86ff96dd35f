"""How the `web` line of a Procfile is run with a socket instead of $PORT, and what others say."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from sockmgr.config import servers
from sockmgr.config.servers import Work
from sockmgr.init import line, node
from sockmgr.init import servers as written
from sockmgr.init.facts import App, Beside, Guess, Project
from sockmgr.init.line import Line
from sockmgr.init.programs import call, for_shell, path_to
from sockmgr.init.python import apps
from sockmgr.launch import launchers
from sockmgr.launch.launchers import Way

FILES = ("Procfile", "Procfile.dev")
MOST = 100  # lines that are read
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PACKAGE = re.compile(r"(?:npm|yarn|pnpm) (?:run )?start")
TO_DO = (
    "it opens its port itself, so a reload stops the old before it starts the new. To lose "
    "nothing, let it take the socket: as descriptor 3, as {http} in the command, or by "
    "LISTEN_FDS; then give it [listen] and remove `exclusive`"
)


def guess(project: Project) -> Guess | None:
    """Return how the web process is run, or None if there is no line for it."""
    for name in FILES:
        below = sorted(one for one in project.files if one.endswith(f"/{name}"))
        for path in (name, *below):
            processes = list(_processes(project.files.get(path, "")))
            web = next((text for kind, text in processes if kind == "web"), None)
            if web is not None and (found := _line(project, web, path)):
                return _with_others(project, found, processes, web, path)
    return None


def _processes(text: str) -> Iterator[tuple[str, str]]:
    for each in text.splitlines()[:MOST]:
        name, colon, command = (part.strip() for part in each.partition(":"))
        if colon and command and _NAME.fullmatch(name):
            yield name, command


def _with_others(
    project: Project, found: Guess, processes: list[tuple[str, str]], web: str, path: str
) -> Guess:
    """Return the guess with what else the file has to be run."""
    others = list(found.others)
    todo, beside = list(found.todo), list[Beside]()
    processes.remove(("web", web))
    for name, text in processes:
        if name == "release":
            todo.append(f"run `{text}` (`release` in {path}) once a deploy, before the reload")
        elif name == "web":
            others.append(f"a second `web` in {path}, which is not run: {text}")
        else:
            beside.append(_beside(project, name, text, path.rpartition("/")[0]))
    return replace(found, todo=tuple(todo), others=tuple(others), beside=tuple(beside))


def _beside(project: Project, name: str, text: str, folder: str) -> Beside:
    told = line.read(text)
    cwd = _cwd(folder, told) if told else folder
    if told is None or not told.words or told.piped or told.before or told.beside:
        return Beside(name=name, text=text, command=("sh", "-c", text), cwd=cwd)
    if told.needs_shell:
        command: tuple[str, ...] = ("sh", "-c", line.joined(told))
    else:
        own = path_to(project, told.argv[0], cwd)
        command = (own or told.argv[0], *told.argv[1:])
    return Beside(name=name, text=text, command=command, cwd=cwd, env=told.env)


# --- The line of the web process -----------------------------------------------------------------


def _line(project: Project, text: str, path: str) -> Guess | None:
    folder = path.rpartition("/")[0]
    found = f"`web` in {path}: {text}"
    told = line.read(text)
    if told is None:
        return None
    cwd = _cwd(folder, told)
    if _PACKAGE.fullmatch(" ".join(told.argv)) and (guess := node.guess(project)):
        return guess
    if told.argv[:1] in (("node",), ("nodejs",)):
        return node.run(project, told, cwd=cwd, found=found)
    if app := _of_fastapi(project, told, cwd):
        word, missing = call(project, "uvicorn", app.cwd)
        why = "`fastapi run` starts uvicorn, which can be given the socket"
        command = written.command("uvicorn", word, app)
        return Guess(command=command, found=found, why=(why,), todo=missing, cwd=app.cwd)
    rewritten = written.rewrite(told)
    if rewritten is None:
        return _kept(told, cwd=cwd, found=found)
    return _served(project, told, rewritten, cwd=cwd, found=found)


def _cwd(folder: str, told: Line) -> str:
    cwd = posixpath.normpath(posixpath.join(folder, told.cwd))
    return "" if cwd == "." else cwd


def _of_fastapi(project: Project, told: Line, cwd: str) -> App | None:
    """Return the application that `fastapi run` serves."""
    launch = launchers.read(told.argv)
    if launch.name != "fastapi" or launch.args[:1] not in (("run",), ("dev",)) or told.needs_shell:
        return None
    files = {posixpath.normpath(posixpath.join(cwd, word)) for word in launch.args[1:]}
    found = [app for app in apps(project.files) if app.framework == "FastAPI"]
    named = (app for app in found if app.file in files)
    return next(named, found[0] if found else None)


def _served(
    project: Project, told: Line, rewritten: written.Rewritten, *, cwd: str, found: str
) -> Guess:
    """Return how a known server is run: without the address, which the manager has."""
    head, missing = _head(project, rewritten, cwd)
    words = rewritten.words(head)
    port = told.port or 8000
    argv = tuple(line.with_port(word.text, port) for word in words)
    if told.setup or told.sets or told.redirections or any(word.expands for word in words):
        raw = (for_shell(project, words[0].raw), *(word.raw for word in words[1:]))
        argv = ("sh", "-c", line.joined(told, raw))
    why = [*written.kinds(rewritten.dropped, rewritten.server)]
    if rewritten.count:
        why.append(f"how many processes {rewritten.count} is cannot be told here; 2 is a guess")
    if told.piped:
        why.append(
            f"its output went to `{told.piped}`: left out, `sockmgr logs` has what workers print"
        )
    return Guess(
        command=argv,
        found=found,
        env=told.env,
        cwd=cwd,
        port=port,
        address=rewritten.address,
        workers=rewritten.workers or 2,
        why=tuple(why),
        todo=(*missing, *_around(told)),
    )


def _head(
    project: Project, rewritten: written.Rewritten, cwd: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return by which words the server is called, () for those of the line; and what is missing.

    What only finds the program in the project's environment is not needed if that is there.
    """
    launch = rewritten.launch
    launcher, direct = launch.before[:1], launch.name == launch.program
    if not launcher and direct:
        return call(project, launch.name, cwd)
    only_finds = (
        launch.chosen
        and launcher[0] in ("poetry", "pipenv", "pdm", "hatch")
        and (len(launch.before) == 2)
    )
    if not only_finds:
        return (), ()
    if own := path_to(project, launch.name, cwd):
        return (own,), ()
    if launch.way is not Way.CLOSES and launcher[0] in project.programs:
        return (), ()
    return call(project, launch.name, cwd)


def _kept(told: Line, *, cwd: str, found: str) -> Guess:
    """Return how a program is run of which nothing is known: as it is, with a port of its own."""
    port = told.port or 8000
    if not told.words or told.piped:
        command: tuple[str, ...] = ("sh", "-c", told.text)
        if told.cwd and told.words:
            cwd = cwd.removesuffix(told.cwd).rstrip("/")
        program, around = "a shell's line", told.beside[:0]
    else:
        argv = tuple(line.with_port(word, port) for word in told.argv)
        command = ("sh", "-c", line.joined(told)) if told.needs_shell else argv
        program, around = launchers.read(told.argv).name, _around(told)
    return Guess(
        command=command,
        found=found,
        env=(*(pair for pair in told.env if pair[0] != "PORT"), ("PORT", str(port))),
        cwd=cwd,
        port=port,
        takes_socket=False,
        workers=1,
        why=(_why(program),),
        todo=(TO_DO, *around),
    )


def _why(program: str) -> str:
    server = servers.named(program)
    if server and server.work is Work.HTTP and not server.takes_socket:
        return f"{program} cannot be given a socket by its command line"
    return f"{program} is not a server that sockmgr knows how to give a socket"


def _around(told: Line) -> tuple[str, ...]:
    """Return what is to be done about the other commands of a line."""
    todo = []
    if told.before:
        commands = " and ".join(f"`{one}`" for one in told.before)
        todo.append(f"run {commands} before, once a deploy")
    if told.beside:
        commands = " and ".join(f"`{one}`" for one in told.beside)
        todo.append(f"give {commands} a service: the line left that running beside")
    return tuple(todo)

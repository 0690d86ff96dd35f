"""How the `web` line of a Procfile is run with a socket instead of $PORT."""

from __future__ import annotations

import re
from dataclasses import replace

from sockmgr.core.project import line, node, servers
from sockmgr.core.project.facts import Guess, Project
from sockmgr.core.project.programs import call, for_shell

_WEB = re.compile(r"^web\s*:\s*(\S.*?)\s*$", re.MULTILINE)
_PACKAGE = re.compile(r"(?:npm|yarn|pnpm)\s+(?:run\s+)?start\s*")
TO_DO = (
    "it opens its port itself, so a reload stops the old before it starts the new. To lose "
    "nothing, let it take the socket: as descriptor 3, as {http} in the command, or by "
    "LISTEN_FDS; then give it [listen] and remove `exclusive`"
)


def guess(project: Project) -> Guess | None:
    """Return how the web process is run, or None if there is no line for it."""
    for path in ("Procfile", *sorted(one for one in project.files if one.endswith("/Procfile"))):
        if found := _WEB.search(project.files.get(path, "")):
            return _line(project, found[1], path)
    return None


def _line(project: Project, text: str, path: str) -> Guess | None:
    cwd = path.rpartition("/")[0]
    found = f"`web` in {path}: {text}"
    told = line.read(text)
    if told is None or not told.argv:
        return None
    if _PACKAGE.fullmatch(text) and (guess := node.guess(project)):
        return guess
    if told.argv[0] in ("node", "nodejs"):
        return node.run(project, text, cwd=cwd, found=found)
    rewritten = servers.rewrite(told.argv)
    if rewritten is None:
        return _kept(told, cwd=cwd, found=found)
    return _served(project, told, rewritten, cwd=cwd, found=found)


def _served(
    project: Project, told: line.Line, rewritten: servers.Rewritten, *, cwd: str, found: str
) -> Guess:
    """Return how a known server is run: without the address, which the manager has."""
    head, missing = rewritten.head, tuple[str, ...]()
    if len(head) == 1:
        head, missing = call(project, head[0].rpartition("/")[2], cwd)
    argv = replace(rewritten, head=head).argv()
    shell = any("$" in word for word in argv)
    if shell:
        argv = (for_shell(project, argv[0]), *argv[1:])
    dropped = ", ".join(rewritten.dropped)
    return Guess(
        command=("sh", "-c", f"exec {line.joined(argv)}") if shell else argv,
        found=found,
        env=tuple((name, value) for name, value in told.env if "$" not in value),
        cwd=cwd,
        port=told.port or 8000,
        workers=rewritten.workers or 2,
        why=(f"{dropped}: left out, sockmgr has the socket and counts the workers",)
        if dropped
        else (),
        todo=(*missing, *_before(told)),
    )


def _kept(told: line.Line, *, cwd: str, found: str) -> Guess:
    """Return how a program is run of which nothing is known: as it is, with a port of its own."""
    port = told.port or 8000
    argv = tuple(line.with_port(word, port) for word in told.argv)
    return Guess(
        command=("sh", "-c", line.in_shell(told)) if told.needs_shell else argv,
        found=found,
        env=(*(() if told.needs_shell else told.env), ("PORT", str(port))),
        cwd=cwd,
        port=port,
        takes_socket=False,
        workers=1,
        why=(f"{told.argv[0]} is not a server that sockmgr knows",),
        todo=(TO_DO, *_before(told)),
    )


def _before(told: line.Line) -> tuple[str, ...]:
    if not told.before:
        return ()
    return (f"run {' and '.join(f'`{one}`' for one in told.before)} before, once a deploy",)

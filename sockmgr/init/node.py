"""Guess how a Node server is started, by package.json, and whether it takes a socket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from sockmgr.init import declared, line
from sockmgr.init.facts import Guess, Project
from sockmgr.launch import shell

ENTRIES = ("server.js", "index.js", "app.js", "server.mjs", "index.mjs", "main.js", "src/index.js")
_ENDINGS = ("", ".js", ".mjs", ".cjs", "/index.js")
_TAKES_SOCKET = re.compile(r"\blisten\s*\(\s*\{[^}]{0,300}\bfd\b|\bLISTEN_FDS\b")
_LISTENS = re.compile(r"\.listen\s*\(")
_OWN_PORT = re.compile(r"\.listen\s*\(\s*(\d{2,5})\b|\bport\s*=\s*(\d{2,5})\b", re.IGNORECASE)
_FRAMEWORKS = {
    "next": "Next.js", "nuxt": "Nuxt", "nest": "Nest", "remix-serve": "Remix", "vite": "Vite",
    "astro": "Astro", "react-scripts": "React's development server",
}  # fmt: skip

TO_DO = (
    "the server opens its port itself, so a reload stops the old before it starts the new. To "
    "lose nothing, let it take the socket: server.listen({ fd: 3 }) instead of "
    "server.listen(PORT), then give it [listen] and remove `exclusive`"
)


def guess(project: Project) -> Guess | None:
    return next(_packages(project), None)


def run(project: Project, parsed: line.Line, *, cwd: str, found: str) -> Guess:
    """Return how a line that starts Node, or a program of a package, is run."""
    program, *arguments = parsed.argv or ("",)
    if program not in ("node", "nodejs") or parsed.needs_shell or parsed.piped:
        return _foreign(project, parsed, cwd=cwd, found=found)
    entry = next((word for word in arguments if not word.startswith("-")), "")
    file, source = _source(project, cwd, entry)
    base = Guess(
        command=parsed.argv, found=found, env=parsed.env, cwd=cwd,
        todo=() if "node" in project.programs else ("node is not in the PATH: install it",),
    )  # fmt: skip
    if _TAKES_SOCKET.search(source):
        why = f"{file} takes its socket as a descriptor, so it can be reloaded without loss"
        return replace(base, why=(why,))
    where = file if source else f"{entry} (not read)"
    own = None if "env.PORT" in source else _OWN_PORT.search(source)
    port = (own and line.port_number(own[1] or own[2])) or _port(parsed)
    env = base.env if own else _with_port(base.env, port)
    return replace(
        base, takes_socket=False, port=port, workers=1, env=env, todo=(*base.todo, TO_DO),
        why=(f"{where} does not take a socket as a descriptor",),
    )  # fmt: skip


def _packages(project: Project) -> Iterator[Guess]:
    files = project.files
    at = sorted((path for path in files if path.rpartition("/")[2] == "package.json"), key=len)
    for path in at:
        cwd = path.rpartition("/")[0]
        package = declared.package_json(files[path])
        scripts, main = package.get("scripts"), package.get("main")
        start = scripts.get("start") if isinstance(scripts, dict) else None
        parsed = line.read(start) if isinstance(start, str) else None
        if parsed:
            yield run(project, parsed, cwd=cwd, found=f"`start` in {path}: {start}")
        elif found := _entry(project, cwd, main if isinstance(main, str) else ""):
            yield found
    if not at and (found := _entry(project, "", "")):
        yield found


def _entry(project: Project, cwd: str, main: str) -> Guess | None:
    """Return how the first file that calls listen() is run, None if there is none."""
    for entry in filter(None, (main, *ENTRIES)):
        file, source = _source(project, cwd, entry)
        if _LISTENS.search(source):
            words = (shell.quoted("node"), shell.quoted(file.removeprefix(f"{cwd}/")))
            parsed = line.Line(text="", words=words)
            return run(project, parsed, cwd=cwd, found=f"a Node server in {file}")
    return None


def _source(project: Project, cwd: str, entry: str) -> tuple[str, str]:
    """Return the file that Node loads for `entry`, and its text, "" if that is not known."""
    path = entry.removeprefix("./").rstrip("/")
    whole = f"{cwd}/{path}" if cwd else path
    for ending in _ENDINGS:
        if entry and (text := project.files.get(whole + ending)):
            return whole + ending, text
    return whole, ""


def _foreign(project: Project, parsed: line.Line, *, cwd: str, found: str) -> Guess:
    """Return how a program is run that is not Node itself: as `npm start` would run it."""
    program = parsed.argv[0] if parsed.words and not parsed.piped else ""
    needs_shell = parsed.needs_shell or not program
    local = f"{cwd}/node_modules/.bin/{program}" if cwd else f"node_modules/.bin/{program}"
    port = _port(parsed)
    if not needs_shell and local in project.programs:
        command = (f"node_modules/.bin/{program}", *parsed.argv[1:])
        command = tuple(line.with_port(word, port) for word in command)
    elif needs_shell or program not in project.programs:
        command = ("npm", "start")
    else:
        command = tuple(line.with_port(word, port) for word in parsed.argv)
    what = _FRAMEWORKS.get(program, program or "what a shell's line starts")
    return Guess(
        command=command, found=found, cwd=cwd, port=port, takes_socket=False, workers=1,
        env=_with_port(() if needs_shell else parsed.env, port), todo=(TO_DO,),
        why=(f"{what} is not known to take a socket as a descriptor",),
    )  # fmt: skip


def _port(parsed: line.Line) -> int:
    return line.port_number(dict(parsed.env).get("PORT", "")) or parsed.port or 8000


def _with_port(env: tuple[tuple[str, str], ...], port: int) -> tuple[tuple[str, str], ...]:
    return (*(pair for pair in env if pair[0] != "PORT"), ("PORT", str(port)))

"""Make services of processes, and of them the text of a config, with what was left in comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sockmgr.config import config, placeholder, servers
from sockmgr.config.servers import Work
from sockmgr.errors import ConfigError, SockmgrError
from sockmgr.init import draft, procfile
from sockmgr.init.facts import Beside, Guess, Project
from sockmgr.init.foreign.form import SLOT, Found, Process, Setting, Variable
from sockmgr.init.line import names_port
from sockmgr.launch import launchers

MOST_SERVICES, MOST_LEFT = 100, 500
_PORT = re.compile(r"\bPORT\b|--?(?:port|bind|listen|addr|host|p)\b|:[0-9]{2,5}\b")
_PROGRAM = ("command", "app", "listen")


def text(found: Found, project: Project, file: str, name: str) -> str:
    """Return the config for what a file says; what cannot be used is left in `found`.

    Raises SockmgrError if nothing can be used.
    """
    listeners, tables = dict[str, object](), list[str]()
    names, taken = set[str](), set[object]()
    for process in found.processes[:MOST_SERVICES]:
        _rename(process, names)
        where = f"{file}:{process.line}: {process.text}".rstrip(" :").replace(SLOT, "{slot}")
        said = [where, *_run(process, project)]
        _part(process, taken)
        _leave_port_open(process, found)
        _judge(process, found)
        if process.keys:
            said += (f"TO DO: {what}." for what in process.todo)
            text = "".join(map(draft.comment, said)) + draft.lines(process.keys)
            tables.append(f"\n[service.{draft.toml_key(process.name)}]\n{text}")
            listeners |= process.listen
    for process in found.processes[MOST_SERVICES:]:
        found.left.append((Setting(process.line, "", process.name, ""), "there are too many"))
    found.left.sort(key=lambda one: one[0].line)
    if not tables:
        why = next(iter(not_carried(found)), "")
        raise SockmgrError(f"{file} has no service: line {why}", means="nothing was written")
    head = f"{draft.HEAD}\nname = {draft.quoted(name)}\n{draft.lines(found.keys)}"
    listen = f"\n[listen]\n{draft.lines(listeners)}" if listeners else ""
    left = "".join(map(draft.comment, not_carried(found)))
    left = f"\n# Not carried over from {draft.plain(file)}, by line:\n{left}" if left else ""
    return "".join((head, listen, *tables, left))


def not_carried(found: Found) -> Iterator[str]:
    """Yield a sentence for each setting that was not carried over, with its line."""
    for one, why in found.left[:MOST_LEFT]:
        parts = one.value if isinstance(one.value, tuple) else (one.value,)
        value = " ".join(" ".join(map(str, parts)).split())[:60]
        if one.inner or one.name[:3].lower() == "env":  # variables may be secret
            value = "..."
        yield f"{one.line}: {f'{one.name} = {value}'.strip(' =')}: {why}"
    if len(found.left) > MOST_LEFT:
        yield f"and {len(found.left) - MOST_LEFT} more"


def _run(process: Process, project: Project) -> tuple[str, ...]:
    """Complete the keys of a process by how its command is run here; return what is said of it."""
    why: tuple[str, ...] = ()
    if process.text and not process.argv:
        folder = project.relative(str(process.keys.pop("cwd", "")))
        guess = procfile.served(project, process.text, f"{folder}/" if folder else "", process.text)
        own_port = (process.serves or _has_port(process)) and not process.listen
        found: Guess | Beside
        if guess and (guess.takes_socket or own_port):
            found, why = guess, guess.why
            _serve(process, guess)
        else:
            found = procfile.alone(project, process.name, process.text, folder)
        words = (re.sub(r"(?<!\{)\{http\}", f"{{{process.name}}}", one) for one in found.command)
        process.argv = tuple(word.replace(SLOT, "{slot}") for word in words)
        process.env = dict(found.env) | process.env
        process.keys["cwd"] = found.cwd
    process.keys["cwd"] = project.relative(str(process.keys.get("cwd", ""))) or "."
    program = {"command": process.argv} if process.argv else {}
    process.keys = {**program, "listen": tuple(process.listen), **process.keys}
    env = {name: value.replace(SLOT, "{slot}") for name, value in process.env.items()}
    process.keys |= {"env": env} if env else {}
    return why


def _leave_port_open(process: Process, found: Found) -> None:
    """Have the process with clients take PORT from the environment, or from .env, as it did."""
    if not process.serves or "env_file" not in found.keys:
        return
    for one in process.listen.values() if names_port(process.text) else ():
        address, _, port = str(one["address"]).rpartition(":")
        one["address"] = Variable(f"{address}:${{PORT:-{port}}}")
    env = process.keys.get("env")
    if isinstance(env, dict) and "PORT" in env and not names_port(process.text):
        env["PORT"] = Variable(f"${{PORT:-{env['PORT']}}}")


def _serve(process: Process, guess: Guess) -> None:
    """Give a process with clients its listener, or have it run alone on a port of its own."""
    process.todo += guess.todo
    if guess.takes_socket:
        process.listen = process.listen or {process.name: {"address": guess.listens_on}}
        process.keys.setdefault("workers", guess.workers)
        process.keys.pop("ready", None)  # a delay is a guess, and here it can be seen
        return
    if SLOT not in process.text:  # else each may have a port of its own
        if process.keys.get("workers", 1) != 1:
            process.todo.append("it ran several times: only one can have its port")
        process.keys["workers"] = 1
    process.keys["rollout"] = {"exclusive": True}


def _has_port(process: Process) -> bool:
    launch = launchers.read(process.text.split())
    server = servers.named(launch.name, launch.args)
    if server and server.work is not Work.ANY:
        return server.work is not Work.JOBS
    return "PORT" in process.env or bool(_PORT.search(process.text))


def _judge(process: Process, found: Found) -> None:
    """Take away what the config's own parser refuses, all of it if that is the program."""
    keys, listen = process.keys, process.listen
    if _usable(process.name, keys, listen):
        return
    whole = Setting(process.line, "", process.name, "")
    process.keys = {key: value for key, value in keys.items() if key in _PROGRAM}
    if not _usable(process.name, process.keys, listen):
        listen = {name: {"address": one["address"]} for name, one in listen.items()}
        found.left += [(whole, "its sockets get an owner, a mode and a backlog by default")]
        process.listen = listen
    if not _usable(process.name, process.keys, listen):
        found.left.append((whole, "sockmgr could not use its command, or its address"))
        process.keys = {}
        return
    for key, value in keys.items():
        if _usable(process.name, {**process.keys, key: value}, listen):
            process.keys[key] = value
        else:
            setting = process.origin.get(key, whole._replace(name=key, value=value))
            found.left.append((setting, f"{key} cannot be that"))


def _usable(name: str, keys: dict[str, object], listen: dict[str, dict[str, object]]) -> bool:
    whole = f"[listen]\n{draft.lines(listen)}[service.{draft.toml_key(name)}]\n{draft.lines(keys)}"
    try:
        config.parse(whole.encode(), file="")
    except ConfigError:
        return False
    return True


def _rename(process: Process, names: set[str]) -> None:
    """Give a process and its listeners names that a config can have, and nothing else has."""
    old, process.name = process.name, _unused(process.name, names)
    first, *others = process.listen.values() if process.listen else (None,)
    process.listen = {process.name: first} if first else {}
    process.listen |= {_unused(process.name, names): one for one in others}
    process.argv = tuple(word.replace(f"{{{old}}}", f"{{{process.name}}}") for word in process.argv)


def _unused(name: str, names: set[str]) -> str:
    """Return a name that services and listeners may have, and add it to `names`."""
    short = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:48]
    short = whole = (
        short if re.fullmatch(placeholder.NAME, short) else f"service-{short}".strip("-")
    )
    number = 2
    while whole in names:
        whole, number = f"{short}-{number}", number + 1
    names.add(whole)
    return whole


def _part(process: Process, taken: set[object]) -> None:
    """Give a process the next ports that no other listener has, where its own are taken."""
    for one in process.listen.values():
        address = str(one["address"])
        start, _, port = address.rpartition(":")
        while one["address"] in taken and port.isdecimal():
            port = str(int(port) + 1)
            one["address"] = f"{start}:{port}"
        if address != one["address"]:
            process.todo.append(f"another service has {address}: choose the port of this one")
        taken.add(one["address"])

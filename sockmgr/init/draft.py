"""Write the text of a sockmgr.toml for a guess, with comments on what to change in it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping

from sockmgr.config.outside import literal
from sockmgr.init.facts import Beside, Guess
from sockmgr.init.foreign.form import Variable

HEAD = """\
# Written by `sockmgr init`. `sockmgr check` says whether it can be used, `sockmgr run` runs it.
# Editors know all keys and values after `sockmgr schema > sockmgr.schema.json`, if the first line
# of this file is
#     #:schema ./sockmgr.schema.json
"""
_LISTEN = """\
[listen]
# tcp://127.0.0.1:{port} is for this machine only, as behind a proxy; tcp://0.0.0.0:{port} is open
# to everybody. Or a unix socket: "unix:///run/{name}/http.sock"
http = {address}
"""
_DRAIN = """\
# How long a worker may take to finish its requests in a reload, before it is killed.
drain_timeout = "30s"
"""
_ROLLOUT = """\
[service.web.rollout]
# A new worker that dies within this time takes the reload back: the old ones serve on.
probation = "5s"
"""
_EXCLUSIVE = """\
[service.web.rollout]
# Two of them cannot have one port, so the old one ends before the new one starts.
exclusive = true
"""
_NOTHING = """\
[service.web]
# Nothing was found here that could be served, so this is yours to write. Examples:
#     app = "shop.main:app"                    # instead of a command: served by sockmgr itself
#     command = ["uvicorn", "--fd", "{http}", "shop.main:app"]
#     command = ["gunicorn", "-k", "gthread", "--threads", "8", "shop.wsgi:app"]
#     command = ["node", "server.js"]          # with server.listen({ fd: 3 })
# {http} becomes the number of the descriptor of listener http; a command that does not name it
# gets LISTEN_FDS, as from systemd. The port is not the program's to open.
command = ["PROGRAM", "ARGUMENT"]
listen = ["http"]
"""
LONGEST = 600  # characters of a text from the project's files that are quoted


def draft(guess: Guess | None, name: str) -> str:
    """Return the whole file; without a guess, a person has to write the command into it."""
    start = f"{HEAD}\nname = {quoted(name)}\n"
    if guess is None:
        listen = _LISTEN.format(port=8000, name=name, address=quoted("tcp://127.0.0.1:8000"))
        return f"{start}\n{listen}\n{_NOTHING}{_workers(2)}{_cwd('')}{_DRAIN}\n{_ROLLOUT}"
    address = quoted(guess.listens_on)
    listen = _LISTEN.format(port=guess.port, name=name, address=address)
    service, beside = "".join(_service(guess)), "".join(map(_beside, guess.beside))
    if guess.takes_socket:
        return f"{start}\n{listen}\n{service}\n{_ROLLOUT}{beside}"
    later = _commented(listen)
    return f"{start}\n# When it takes the socket:\n{later}\n{service}\n{_EXCLUSIVE}{beside}"


def _beside(found: Beside) -> str:
    """Return a service without listeners, as a comment: it may be meant to run somewhere else."""
    keys = lines({"command": found.command, "listen": (), "cwd": found.cwd or "."})
    keys += lines({"env": dict(found.env)}) if found.env else ""
    why = comment(f"Also run until now: `{found.name}`: {found.text}")
    return f"\n{why}{_commented(f'[service.{found.name}]' + chr(10) + keys)}"


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" if line else "#\n" for line in text.splitlines())


def _service(guess: Guess) -> Iterator[str]:
    yield "[service.web]\n"
    for text in (guess.found, *guess.why):
        yield comment(text)
    for text in guess.todo:
        yield comment(f"TO DO: {text}.")
    for text in guess.others:
        yield comment(f"Also found: {text}")
    listen = ("http",) if guess.takes_socket else ()
    yield lines({"command": guess.command, "listen": listen})
    yield _workers(guess.workers) if guess.takes_socket else "workers = 1\n"
    yield _cwd(guess.cwd)
    yield lines({"env": dict(guess.env)}) if guess.env else ""
    yield _DRAIN


def _workers(count: int) -> str:
    return f"# One process each. As many as there are cores is a good start.\nworkers = {count}\n"


def _cwd(folder: str) -> str:
    return (
        "# Seen from this file. The real path is taken at each reload, so this may be a link such\n"
        f"# as /srv/shop/current.\ncwd = {quoted(folder or '.')}\n"
    )


def plain(text: str) -> str:
    """Return `text` from a file of the project, fit for a comment and a terminal."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(one if one.isprintable() else " " for one in text)


def comment(text: str) -> str:
    return textwrap.fill(
        plain(text), 98, initial_indent="# ", subsequent_indent="#   ", break_long_words=False,
        break_on_hyphens=False,
    ) + "\n"  # fmt: skip


def quoted(value: str) -> str:
    # Every string of JSON is a basic string of TOML, once DEL is escaped.
    # JSON may have lone surrogates, UTF-8 not, and no argument a NUL. A ${ is the shell's.
    text = literal(value.encode(errors="replace").decode().replace("\0", "?"))
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def lines(table: Mapping[str, object]) -> str:
    """Return the keys of a table as lines of TOML."""
    return "".join(f"{toml_key(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        if list(value) == ["address"]:
            return _toml(value["address"])
        return f"{{ {', '.join(f'{toml_key(k)} = {_toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Variable):
        return f'"{value}"'
    return quoted(value) if isinstance(value, str) else str(value).lower()


def toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)

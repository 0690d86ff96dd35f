"""Write the man pages, from the commands and from the schema of the config: `make man`.

`python docs/make_man.py DIRECTORY` writes sockmgr.1, a page for each verb, and sockmgr.toml.5.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from sockmgr import __version__, cli
from sockmgr.config.schema import schema
from sockmgr.config.shape import DURATION, SIZE, TIMEOUT

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"

EXIT_STATUS = {
    0: "Done.",
    cli.FAILED: "Failed: the message says what happened, what it means, and what to do.",
    cli.USAGE: "Wrong usage, or a config that cannot be used.",
    cli.NO_MANAGER: "There is no manager to talk to.",
    cli.STILL_WAITING: "Waited as long as was asked for; the operation goes on.",
    cli.INTERRUPTED: "Interrupted; the operation goes on.",
}

ABOUT = (
    "sockmgr holds listening sockets and runs the servers behind them. A reload starts the new "
    "code beside the old, waits until it accepts connections, moves new connections over in one "
    "step, and only then lets the old workers finish. If the new code fails, nothing changes.",
    "Each verb has a page of its own; they are listed below. All but run and dev talk to a manager "
    "that runs, or need none.",
)

CONFIG = (
    "A file in TOML. `sockmgr check` says whether it is right, and what a reload would change. In "
    "each value ${NAME} stands for a variable of the environment, and ${NAME:-DEFAULT} for one "
    "that may be missing."
)

EXAMPLE = """\
name = "shop"

[listen]
http = "tcp://127.0.0.1:8000"

[service.web]
command = ["uvicorn", "--fd", "{http}", "shop.main:app"]
workers = 4
cwd = "/srv/shop/current"
"""

_ESCAPES = {"\\": "\\e", "-": "\\-", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
_VARIABLES = r"\$\{"
_WORDS = {
    DURATION.schema["pattern"]: 'a duration, such as "30s"',
    TIMEOUT.schema["pattern"]: 'a duration, such as "30s"',
    SIZE.schema["pattern"]: 'a size, such as "512M"',
}


# --- roff: groff_man(7) --------------------------------------------------------------------------


def _text(text: str) -> str:
    """Return a text in which nothing is a request or an escape."""
    for sign, escape in _ESCAPES.items():
        text = text.replace(sign, escape)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def _filled(text: str) -> str:
    """Return a paragraph in lines that can be compared."""
    return _text(textwrap.fill(text, 72, break_on_hyphens=False, break_long_words=False))


def _head(name: str, section: int, about: str) -> list[str]:
    dated = re.search(r"^## \[[0-9.]+\] - (\S+)$", CHANGELOG.read_text(), re.MULTILINE)
    date = dated[1] if dated else ""
    title = f'.TH "{name.upper()}" {section} "{date}" "sockmgr {__version__}" "sockmgr"'
    return [title, ".SH NAME", _filled(f"{name} - {about.rstrip('.')}")]


def _item(term: str, text: str) -> list[str]:
    return [".TP", f".B {_text(term)}", _filled(text)]


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text; what stands after a \\b keeps its lines, as in click."""
    for number, part in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if part.startswith("\b"):
            yield from (".PP", ".nf", _text(part.removeprefix("\b\n")), ".fi")
        else:
            yield from ([".PP"] if number else [])
            yield _filled(" ".join(part.split()))


def _see(*pages: tuple[str, int]) -> list[str]:
    listed = [f".BR {_text(name)} ({section})" for name, section in sorted(set(pages))]
    return [".SH SEE ALSO", *(f"{line}," for line in listed[:-1]), listed[-1]]


# --- Commands ------------------------------------------------------------------------------------


def _usage(context: click.Context) -> list[str]:
    pieces = context.command.collect_usage_pieces(context)
    return [".SH SYNOPSIS", f".B {_text(context.command_path)}", _text(" ".join(pieces))]


def _options(context: click.Context) -> list[str]:
    params = context.command.get_params(context)
    found = [each.get_help_record(context) for each in params if isinstance(each, click.Option)]
    lines = [line for each in found if each for line in _item(*each)]
    return [".SH OPTIONS", *lines]


def _exit_status() -> list[str]:
    lines = [line for code, text in EXIT_STATUS.items() for line in _item(str(code), text)]
    return [".SH EXIT STATUS", *lines]


def _verb(context: click.Context) -> list[str]:
    command = context.command
    return [
        *_head(context.command_path.replace(" ", "-"), 1, command.get_short_help_str(200)),
        *_usage(context), ".SH DESCRIPTION", *_paragraphs(command.help or ""),
        *_options(context), *_exit_status(), *_see(("sockmgr", 1), ("sockmgr.toml", 5)),
    ]  # fmt: skip


def _program(context: click.Context, verbs: Mapping[str, click.Context]) -> list[str]:
    listed = [
        line
        for name, each in verbs.items()
        for line in _item(name, each.command.get_short_help_str(200))
    ]
    about = [line for each in ABOUT for line in (".PP", _filled(each))][1:]
    pages = [(f"sockmgr-{name}", 1) for name in verbs]
    return [
        *_head("sockmgr", 1, context.command.get_short_help_str(200)), *_usage(context),
        ".SH DESCRIPTION", *about, ".SH VERBS", *listed, *_options(context), *_exit_status(),
        *_see(("sockmgr.toml", 5), *pages),
    ]  # fmt: skip


# --- The config ----------------------------------------------------------------------------------


def _config() -> list[str]:
    whole = schema()
    return [
        *_head("sockmgr.toml", 5, "what sockmgr listens on, and what it runs"),
        ".SH DESCRIPTION",
        _filled(CONFIG),
        *_tables(whole, ()),
        ".SH EXAMPLES", ".nf", _text(EXAMPLE.rstrip()), ".fi",
        *_see(("sockmgr", 1), ("sockmgr-check", 1), ("sockmgr-schema", 1)),
    ]  # fmt: skip


def _tables(part: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys of a table, and then each of the tables in it."""
    yield f'.SH "{_text("[" + ".".join(path) + "]" if path else "AT THE TOP")}"'
    yield _filled(part.get("description", "These stand before the first table."))
    yield from _keys(part)
    for name, each in part["properties"].items():
        yield from _inner(each, (*path, name))


def _inner(part: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    free = part.get("additionalProperties")
    for each in (part, *part.get("anyOf", ())):
        if each.get("properties"):
            yield from _tables({"description": part.get("description", "")} | dict(each), path)
    if isinstance(free, dict):
        about = {"description": part["description"]} if "description" in part else {}
        yield from _inner({**free, **about}, (*path, "NAME"))


def _keys(part: Mapping[str, Any]) -> Iterator[str]:
    for name, each in part["properties"].items():
        if not (about := each.get("description")):
            continue
        yield from (".TP", f'.BR {_text(name)} " {_text("= " + _kind(each))}"', _filled(about))
        if "default" in each:
            yield _text(f"Default: {_value(each['default'])}.")


def _value(value: object) -> str:
    """Return a value as it is written in TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _kind(part: Mapping[str, Any]) -> str:
    """Say what a value may be, as shortly as helps."""
    if "anyOf" in part:
        kinds = [_kind(each) for each in part["anyOf"] if each.get("pattern") != _VARIABLES]
        return ", or ".join(dict.fromkeys(kinds))
    if "enum" in part:
        return ", ".join(_value(each) for each in part["enum"])
    match part.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return f"a number from {part.get('minimum', 0)}"
        case "array":
            return f"[{_kind(part.get('items', {}))}, ...]"
        case "object":
            return "a table"
        case _:
            return _WORDS.get(part.get("pattern", ""), "a text")


# --- All of them ---------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    top = click.Context(cli.cli, info_name="sockmgr", **cli.cli.context_settings)
    commands = {name: cli.cli.get_command(top, name) for name in cli.cli.list_commands(top)}
    verbs = {
        name: click.Context(command, info_name=name, parent=top)
        for name, command in commands.items()
        if command
    }
    found = {f"sockmgr-{name}.1": _verb(context) for name, context in verbs.items()}
    found |= {"sockmgr.1": _program(top, verbs), "sockmgr.toml.5": _config()}
    return {name: "\n".join(lines) + "\n" for name, lines in found.items()}


def main(directory: Path) -> None:
    """Write the pages into man1 and man5 of a directory."""
    for name, text in pages().items():
        path = directory / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

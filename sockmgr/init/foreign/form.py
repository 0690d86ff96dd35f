"""The form of what other managers' configs say: settings, processes, and what was left of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sockmgr.init.facts import Project

MOST_LISTENERS = 16  # of one process
SLOT = "\ue000"  # {slot}, in a text in which braces do not name anything yet


class Setting(NamedTuple):
    """A setting of the file: a text, a number, a tuple, Computed, or a list of Settings."""

    line: int
    section: str
    name: str
    value: object

    @property
    def inner(self) -> list[Setting]:
        found = self.value if isinstance(self.value, list) else []
        return [one for one in found if isinstance(one, Setting)]


class Variable(str):
    """A text for the config that names a variable, which `sockmgr run` is to look up."""


class Computed(str):
    """The text of an expression, whose value only a program could know."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read: its `name` as seen from the project, and its `text`."""

    name: str
    text: str
    project: Project


@dataclass(slots=True, kw_only=True)
class Process:
    """One process of the file, which becomes a service.

    `text` is its command as a shell's line, or else `argv` as a config has it. `keys` are those of
    its table, `origin` the setting that each comes from. `listen` are the keys of its listeners, by
    name. With `serves` it has clients, though its program may be unknown. `todo` is for a person.
    """

    name: str
    line: int = 1
    text: str = ""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    keys: dict[str, object] = field(default_factory=dict)
    origin: dict[str, Setting] = field(default_factory=dict)
    listen: dict[str, dict[str, object]] = field(default_factory=dict)
    serves: bool = False
    todo: list[str] = field(default_factory=list)

    def hear(self, text: str, host: str = "0.0.0.0") -> str:  # noqa: S104 - read, not bound here
        """Add a listener at what a file calls an address; return why that cannot be, or ""."""
        path, at = re.sub(r"^unix:(?://)?", "", text), ""
        if re.fullmatch(r"/[^?%\x00-\x20]{1,106}", path):
            at = f"unix://{path}"
        elif found := re.fullmatch(r"(?:\w+://)?(?:(\[[\da-fA-F:.]+\]|[\w.-]*|\*):)?(\d+)", text):
            at = f"tcp://{host if found[1] in (None, '', '*') else found[1]}:{found[2]}"
        if not at or len(self.listen) == MOST_LISTENERS:
            return "it is no address that sockmgr could listen on, or one too many"
        name = f"{self.name}-{len(self.listen) + 1}" if self.listen else self.name
        self.listen[name] = {"address": at}
        return ""


@dataclass(slots=True)
class Found:
    """What a file says: its processes, and the settings that were left, each with the reason.

    `keys` are those of all services.
    """

    keys: dict[str, object] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    left: list[tuple[Setting, str]] = field(default_factory=list)


def ini(text: str, *, indents: bool = False, inline: str = "") -> Iterator[Setting]:
    """Yield the sections (without a name) and the settings of an INI file, with their lines.

    A line goes on behind a backslash, and with `indents` also if the next one is indented. With
    `inline` a comment may stand behind a value, after one of these marks. configparser knows no
    lines, and keeps one of what is given twice.
    """
    section, start, parts = "", 0, list[str]()
    for number, each in enumerate((*text.rstrip("\\ \t\r\n").split("\n"), ""), 1):
        bare = re.split(rf"\s[{inline}]", each, maxsplit=1)[0] if inline else each
        plain = bare.strip()
        if plain[:1] in ("#", ";"):
            continue
        if parts and (parts[-1][-1:] == "\\" or (indents and plain and bare[0] in " \t")):
            parts.append(plain)
            continue
        line = " ".join(part.rstrip("\\ ") for part in parts)
        if line[:1] == "[" and "]" in line:
            section = line[1 : line.index("]")].strip()
            yield Setting(start, section, "", "")
        elif line:
            name, *value = re.split("[=:]", line, maxsplit=1)
            yield Setting(start, section, name.strip(), value[0].strip() if value else "true")
        start, parts = number, [plain]

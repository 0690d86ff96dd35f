"""Take a line for a shell apart, from a Procfile or a script of package.json."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sockmgr.config import placeholder
from sockmgr.launch import shell
from sockmgr.launch.shell import Command, Word

# {{PORT}} is the text that placeholder.literal() returns for {PORT}.
_PORT = re.compile(r"\$(?:PORT\b|\{PORT(?::?-(\d+))?\}|\{\{PORT\}\})")
_DUPLICATION = re.compile(r"\d*>&\d")  # 2>&1, which a worker needs not: both go to one log
_IN_SHELL = frozenset(
    {"cd", "source", ".", "export", "ulimit", "umask", "set", "unset", "eval", "alias"}
)
LONGEST = 8192  # characters of a line that is read
_SHELLS = ("sh", "bash", "dash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The last command of a line, which runs in `cwd` with the variables `env`.

    `before` are commands that end before it, `beside` those that go on beside it, `piped` the ones
    that get its output. `setup` is what the same shell must do first. `redirections` need a shell,
    and so do `sets`, assignments whose values expand. `port` is the default of PORT in the line, 0
    if it has none. If no single command can be taken out of the line, there are no `words`, and a
    shell must run the whole `text`.
    """

    text: str
    words: tuple[Word, ...] = ()
    sets: tuple[Word, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    setup: str = ""
    redirections: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    piped: str = ""
    port: int = 0

    @property
    def argv(self) -> tuple[str, ...]:
        """The command for a config, in which no braces name a listener."""
        return tuple(placeholder.literal(word.text) for word in self.words)

    @property
    def needs_shell(self) -> bool:
        """Whether only a shell can run it: for variables other than PORT, or redirections."""
        return bool(
            not self.words
            or self.setup
            or self.redirections
            or self.sets
            or any(map(_expands, self.words))
        )


def read(text: str) -> Line | None:
    """Take `text` apart; None if it is not valid, or longer than any line a person writes."""
    text = text.strip()
    if len(text) > LONGEST:
        return None
    if text[:1] == "(" and text[-1:] == ")" and shell.parse(text[1:-1]):
        text = text[1:-1].strip()
    commands = shell.parse(text)
    if not commands:
        return None
    ports = [port_number(found) for found in _PORT.findall(text) if found]
    whole = Line(text=placeholder.literal(text), port=ports[0] if ports else 0)
    *earlier, last = _groups(commands)
    found = _last(text, whole, last)
    if found is None or any(map(_is_compound, commands)):
        return whole
    for group in reversed(earlier):
        found = _after(text, found, group)
    return _within(found)


def joined(line: Line, words: Sequence[str] = ()) -> str:
    """Return a text for a shell, which then becomes the command, or `words` instead of its own."""
    own = (placeholder.literal(word.raw) for word in line.words)
    sets = (placeholder.literal(word.raw) for word in line.sets)
    parts = (*sets, "exec", *(words or own), *map(placeholder.literal, line.redirections))
    return with_port(placeholder.literal(line.setup) + " ".join(parts), line.port or 8000)


def port_number(text: str) -> int:
    """Return the port that a text is the number of, 0 if there is no such port."""
    return int(text) if re.fullmatch(r"\d{1,5}", text) and int(text) < 65536 else 0


def with_port(text: str, port: int) -> str:
    return _PORT.sub(str(port), text)


def names_port(text: str) -> bool:
    return _PORT.search(placeholder.literal(text)) is not None


def only_port(word: Word) -> bool:
    """Return whether a word has no other variable than PORT."""
    return not _expands(word)


def _expands(word: Word) -> bool:
    return word.expands and bool(re.search(r"[$`*?\[~]", _PORT.sub("", word.raw)))


# --- Groups of commands --------------------------------------------------------------------------


def _groups(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """Yield the groups between `&&`, `;` and `&`: commands that `|` or `||` join."""
    group: list[Command] = []
    for command in commands:
        group.append(command)
        if command.joint not in ("|", "|&", "||"):
            yield group
            group = []
    if group:
        yield group


def _is_compound(command: Command) -> bool:
    first = command.words[0].text if command.words else ""
    return command.joint in ("(", ")") or first in shell.COMPOUND


def _last(text: str, whole: Line, group: list[Command]) -> Line | None:
    """Return the command of the last group, None if it is not a single command that stays."""
    first, *others = group
    if group[-1].joint == "&" or any(one.joint == "||" for one in group):
        return None
    words = shell.program(first)
    if not words or not shell.last((replace(first, joint=""),)):
        return None
    return replace(
        whole,
        words=words,
        sets=tuple(filter(_expands, first.sets)),
        env=tuple(_pair(word) for word in first.sets if only_port(word)),
        redirections=tuple(r for r in first.redirections if not _DUPLICATION.fullmatch(r)),
        piped=text[others[0].start :].strip() if others else "",
    )


def _after(text: str, line: Line, group: list[Command]) -> Line:
    first, written = group[0], text[group[0].start : group[-1].end]
    words = [word.text for word in first.words]
    alone = len(group) == 1
    if group[-1].joint == "&":
        return replace(line, beside=(written, *line.beside))
    if alone and words[:1] == ["cd"] and len(words) == 2 and not first.words[1].expands:
        return replace(line, cwd=posixpath.normpath(posixpath.join(words[1], line.cwd)))
    if alone and not line.setup and words[:1] in ([], ["export"]):
        sets = (*first.sets, *first.words[1:])
        if all("=" in word.text and only_port(word) for word in sets):
            return replace(line, env=(*map(_pair, sets), *line.env))
    if not words or words[0] in _IN_SHELL:
        # Only bash and zsh call it `source`.
        written = f". {written[7:]}" if written.startswith("source ") else written
        then = f"cd {shlex.quote(line.cwd)} && " if line.cwd else ""
        return replace(line, cwd="", setup=f"{written} && {then}{line.setup}")
    return replace(line, before=(written, *line.before))


def _within(line: Line) -> Line:
    """Return the line inside `sh -c '...'`, if `line` is that, with what stands around it."""
    words = [word.text for word in line.words]
    if len(words) != 3 or words[0].rpartition("/")[2] not in _SHELLS or line.redirections:
        return line
    if not re.fullmatch(r"-[a-z]*c", words[1]) or _expands(line.words[2]):
        return line
    inner = read(words[2])
    if inner is None or not inner.words or line.setup or line.piped:
        return line
    return replace(
        inner,
        env=(*line.env, *inner.env),
        sets=(*line.sets, *inner.sets),
        cwd=posixpath.normpath(posixpath.join(line.cwd, inner.cwd)) if line.cwd else inner.cwd,
        before=(*line.before, *inner.before),
        beside=(*line.beside, *inner.beside),
        port=line.port or inner.port,
    )


def _pair(word: Word) -> tuple[str, str]:
    name, _, value = word.text.partition("=")
    return name, value

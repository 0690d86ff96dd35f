"""A line that a shell would run, as in a Procfile or a script of package.json, taken apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sockmgr.core import placeholder

# {{PORT}}: what literal() makes of {PORT}
_PORT = re.compile(r"\$(?:PORT\b|\{PORT(?::?-(\d+))?\}|\{\{PORT\}\})")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\}+)")
_OPERATOR = re.compile(r"[();<>|&]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The command that a line ends with; `before` are those that it runs first.

    `argv` and `text` are written for the `command` of a config: no braces in them name a listener.
    `port` is what PORT is by default, 0 if that is not said. A line that only a shell can run
    (pipes, variables other than PORT) `needs_shell`; its `text` is then the whole last command.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    before: tuple[str, ...]
    text: str
    port: int = 0
    needs_shell: bool = False


def read(text: str) -> Line | None:
    """Return what `text` runs, or None if no shell would take it."""
    *before, last = _commands(text) or [[]]
    whole = text.strip() if not before else joined(last)
    env = []
    while last and (pair := _ASSIGNMENT.fullmatch(last[0])):
        env.append((pair[1], pair[2]))
        last = last[1:]
    if not last or _OPERATOR.fullmatch(last[0]):
        return None
    argv = tuple(placeholder.literal(word) for word in last)
    rest = [_PORT.sub("", word) for word in (*argv, *(value for _, value in env))]
    ports = [int(found) for found in _PORT.findall(text) if found]
    return Line(
        argv=argv,
        env=tuple(env),
        before=tuple(shlex.join(command) for command in before if command),
        text=placeholder.literal(whole),
        port=ports[0] if ports else 0,
        needs_shell=any("$" in word or "`" in word for word in rest)
        or any(_OPERATOR.fullmatch(word) for word in last),
    )


def _commands(text: str) -> list[list[str]]:
    """Return the words of each command, nothing if a quote has no end."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word in ("&&", ";"):
                commands.append([])
            else:
                commands[-1].append(word)
    except ValueError:
        return []
    return commands


def _quoted(word: str) -> str:
    if _OPERATOR.fullmatch(word) or _VARIABLE.fullmatch(word):
        return word  # a variable by itself may stand for several words
    if "$" not in word and "`" not in word:
        return shlex.quote(word)
    return '"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"'))


def joined(words: Sequence[str]) -> str:
    """Return words as a line for a shell, which still expands the variables in them."""
    return " ".join(map(_quoted, words))


def in_shell(told: Line) -> str:
    """Return a line that a shell runs and, if it can, becomes."""
    simple = not any(_OPERATOR.fullmatch(word) for word in told.argv)
    return f"exec {joined(told.argv)}" if simple and not told.env else told.text


def with_port(text: str, port: int) -> str:
    """Return `text` with a number for the variable PORT."""
    return _PORT.sub(str(port), text)

"""Take a line for a shell apart: commands, words, redirections. Expands and runs nothing.

Takes linear time for any line, because it may come from a file that nobody has looked at.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_SPACE = " \t\r"
_JOINTS = ("&&", "||", ";;", "|&", ";", "|", "&", "(", ")", "\n")
_REDIRECTION = re.compile(r"(?:\d*(?:<<<|<<-?|<>|<&|>>|>&|>\||<|>)|&>>|&>)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_PATTERN = re.compile(r"[*?\[]")
_OPEN = ("&&", "||", "|", "|&")  # behind which a command must follow
COMPOUND = frozenset({
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "{",
    "}", "!", "function", "[[",
})  # fmt: skip
_ENDS = {"(": ")", "{": "}"}


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written (`raw`), and without its quotes (`text`).

    If it `expands`, only a shell knows its value, and `text` still has the `$` or the pattern.
    """

    raw: str
    text: str
    expands: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: its words, its redirections as they are written, and the joint behind it.

    `start` and `end` are its offsets in the line, `sets` the assignments before its first word.
    """

    start: int
    end: int
    sets: tuple[Word, ...] = ()
    words: tuple[Word, ...] = ()
    redirections: tuple[str, ...] = ()
    joint: str = ""


def parse(text: str) -> tuple[Command, ...] | None:
    """Return the commands of a line, or None if it is not valid."""
    try:
        found = tuple(_commands(list(_tokens(text)), len(text)))
    except _Unfinished:
        return None
    if any(not one.words and not one.sets and one.joint in _OPEN for one in found):
        return None
    return None if found and found[-1].joint in _OPEN else found


def last(commands: tuple[Command, ...]) -> Command | None:
    """Return the last command if a shell may become it by `exec`; None if not."""
    if not commands or commands[-1].joint not in ("", ";", "\n"):
        return None
    for before, command in zip((None, *commands), commands, strict=False):
        first = command.words[0].text if command.words else ""
        if command.joint in ("(", ")") or first in COMPOUND:
            return None
        if command is commands[-1] and before and before.joint in ("|", "|&"):
            return None
    return commands[-1] if commands[-1].words else None


def program(command: Command) -> tuple[Word, ...]:
    """Return the words of a command without the `exec` before them."""
    return command.words[1:] if becomes(command) else command.words


def becomes(command: Command) -> bool:
    """Return whether a shell becomes the command by `exec`."""
    return command.words[:1] != () and command.words[0].raw == "exec"


def quoted(text: str) -> Word:
    """Return the word that stands for `text` itself."""
    return Word(shlex.quote(text), text)


class _Unfinished(Exception):
    """A quote or a substitution has no end."""


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    word: Word | None = None
    joint: str = ""
    redirection: str = ""


def _commands(tokens: list[_Token], end: int) -> Iterator[Command]:
    parts: list[_Token] = []
    for token in [*tokens, _Token(end, end)]:
        if token.word or token.redirection:
            parts.append(token)
        elif parts or token.joint in ("(", ")", "&&", "||", "|"):
            yield _command(parts, token)
            parts = []


def _command(parts: list[_Token], end: _Token) -> Command:
    sets: list[Word] = []
    words: list[Word] = []
    for word in filter(None, (part.word for part in parts)):
        (sets if not words and _ASSIGNMENT.match(word.raw) else words).append(word)
    return Command(
        start=parts[0].start if parts else end.start,
        end=parts[-1].end if parts else end.start,
        sets=tuple(sets),
        words=tuple(words),
        redirections=tuple(part.redirection for part in parts if part.redirection),
        joint=end.joint,
    )


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
        elif text[at] == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif found := _REDIRECTION.match(text, at):
            start, at = at, found.end()
            while at < len(text) and text[at] in _SPACE:
                at += 1
            _, at = _word(text, at)
            yield _Token(start, at, redirection=text[start:at])
        elif joint := next((one for one in _JOINTS if text.startswith(one, at)), ""):
            at += len(joint)
            yield _Token(at, at, joint=joint)
        else:
            start = at
            word, at = _word(text, at)
            yield _Token(start, at, word)


def _word(text: str, at: int) -> tuple[Word, int]:
    start, plain, expands = at, list[str](), False
    while at < len(text) and text[at] not in " \t\r\n;|&()<>":
        end = at + 1
        match text[at]:
            case "'":
                end = _find(text, "'", end) + 1
                plain.append(text[at + 1 : end - 1])
            case '"':
                end = _closing(text, at)
                expands = expands or bool(re.search(r"[$`]", text[at:end]))
                plain.append(re.sub(r'\\([\\"$`])', r"\1", text[at + 1 : end - 1]))
            case "\\":
                if end == len(text):
                    raise _Unfinished
                plain.append(text[end])
                end += 1
            case "$" | "`":
                end = _closing(text, at)
                expands = True
                plain.append(text[at:end])
            case other:
                plain.append(other)
        at = end
    raw = text[start:at]
    return Word(raw, "".join(plain), expands or _matches_files(raw)), at


def _matches_files(raw: str) -> bool:
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|\\.", "", raw)
    return bool(_PATTERN.search(bare)) or bare.startswith("~")


def _find(text: str, what: str, at: int) -> int:
    end = text.find(what, at)
    if end < 0:
        raise _Unfinished
    return end


def _closing(text: str, at: int) -> int:
    """Return the end of the double quote, backquote or substitution that begins at `at`."""
    if text[at] == "$" and text[at + 1 : at + 2] not in _ENDS:
        return at + 1
    ends: list[str] = []
    while at < len(text):
        one, following = text[at], text[at + 1 : at + 2]
        if one == "\\":
            at += 1
        elif ends and one == ends[-1]:
            ends.pop()
        elif one == "$" and following in _ENDS:
            ends.append(_ENDS[following])
            at += 1
        elif one in '`"' or (one == "(" and ends and ends[-1] == ")"):
            ends.append(_ENDS.get(one, one))
        elif one == "'" and (not ends or ends[-1] != '"'):
            at = _find(text, "'", at + 1)
        at += 1
        if not ends:
            return at
    raise _Unfinished

"""Reads, from what a worker printed, why it did not get ready. Pure.

Recognises tracebacks of Python, even after the prefixes of loggers and in exception groups, and
stacks of Node. Any other output is shown as it was printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sockmgr.dev.rules import Rules

TRACEBACK = "Traceback (most recent call last):"
FRAMES_MAX = 100
OUTPUT_MAX = 200  # lines

_SGR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'(?P<indent>[\s|+-]*)File "(?P<file>[^"]+)", line (?P<line>\d+)(?P<rest>.*)')
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?::.*)?")
_NODE = re.compile(
    r"\s+at (?:(?P<where>.*) \()?(?:file://)?(?P<file>/[^:()]+):(?P<line>\d+):\d+\)?"
)
_NODE_TOP = re.compile(r"(?:file://)?(?P<file>/[^:]+\.[cm]?[jt]sx?):(?P<line>\d+)")


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a program on the way to the error; `function` may be ""."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a worker did not get ready. `what` says how it ended; `output` has its last lines.

    `error` is the line that names the error, "" if there is none. The last of the `frames` is the
    one that raised it.
    """

    what: str
    error: str
    frames: tuple[Frame, ...]
    output: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the frames name by an absolute path, each once."""
        return tuple(dict.fromkeys(frame.file for frame in self.frames if frame.file[0] == "/"))

    def split(self, rules: Rules) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
        """Return the user's frames, the one that raised first, and the other frames in order."""
        ours = tuple(frame for frame in reversed(self.frames) if rules.holds(frame.file))
        return ours, tuple(frame for frame in self.frames if not rules.holds(frame.file))


def read(output: Sequence[str], what: str) -> Failure:
    """Find the error in the lines that a worker printed last; `what` says how it ended."""
    lines = [_SGR.sub("", line) for line in output[-OUTPUT_MAX:]]
    python = list(_python(lines))
    node = [] if python else list(_node(lines))
    return Failure(
        what=what,
        error=_python_error(lines) if python else _node_error(lines) if node else "",
        frames=tuple(python or node)[-FRAMES_MAX:],
        output=tuple(lines),
    )


def printable(text: str) -> str:
    """Return one line without tabs, and without characters that would control a terminal."""
    text = text.expandtabs(4)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _python(lines: Sequence[str]) -> Iterator[Frame]:
    for line in lines:
        if match := _FRAME.fullmatch(line):
            rest = match["rest"]
            function = rest.removeprefix(", in ") if rest.startswith(", in ") else ""
            yield Frame(match["file"], int(match["line"]), function)


def _python_error(lines: Sequence[str]) -> str:
    """Return the first line after the last frame that is indented less than the frames are."""
    last = max(at for at, line in enumerate(lines) if _FRAME.fullmatch(line))
    frame = _FRAME.fullmatch(lines[last])
    indent = len(frame["indent"]) if frame else 0
    for line in lines[last + 1 :]:
        text = line.lstrip(" |+-")
        if len(line) - len(text) < indent and _ERROR.fullmatch(text):
            return text
    return ""


def _node(lines: Sequence[str]) -> Iterator[Frame]:
    """Yield the frames of a stack in Python's order; Node prints the last one first."""
    found: list[Frame] = []
    for line in lines:
        if match := _NODE.fullmatch(line):
            found.append(Frame(match["file"], int(match["line"]), match["where"] or ""))
        elif match := _NODE_TOP.fullmatch(line):
            found.append(Frame(match["file"], int(match["line"]), ""))
    # The top line of a stack is the place of a syntax error, which is in no frame.
    yield from dict.fromkeys(reversed(found))


def _node_error(lines: Sequence[str]) -> str:
    return next((line for line in lines if re.match(r"(?:Uncaught )?\w*Error\b", line)), "")

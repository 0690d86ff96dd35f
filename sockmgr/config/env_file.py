"""Read a file of variables, in the format that Docker Compose, systemd and python-dotenv share.

What they read differently is an error, so a value is never another one than somebody else sees:
systemd.exec(5), EnvironmentFile=; python-dotenv's parser.py; compose-go's dotenv. No error shows
a value.
"""

from __future__ import annotations

import re

from sockmgr.config import positions
from sockmgr.config.values import RESERVED_ENV
from sockmgr.errors import ConfigError

_SKIPPED = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*")
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=")
_LINE = re.compile(r"[^\n]*")
_QUOTED = {
    "'": re.compile(r"'([^'\\]*(?:\\[^'\\][^'\\]*)*)'"),
    '"': re.compile(r'"([^"\\$]*(?:\\["\\][^"\\$]*)*)"'),
}
_OF_QUOTES = {
    "'": "has no second quote, or a backslash before a quote or a backslash",
    '"': 'has no second quote, or a $ or a backslash, but for \\" and \\\\, before it',
}
_OF_BARE = {
    re.compile(r"[ \t]+\S"): "begins with a blank",
    re.compile(r".*[\\$]"): "has a backslash or a $ outside of quotes",
    re.compile(r"#|.*[ \t]#"): "has a # that is a comment for some",
}


def parse(data: bytes, file: str) -> dict[str, str]:
    """Return the variables of a file, of which the last of a name counts; raise ConfigError."""
    try:
        text = data.decode().replace("\r\n", "\n") + "\n"
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise _wrong(file, before, len(before), "a byte is not UTF-8", "save it in UTF-8") from None
    found: dict[str, str] = {}
    at = _after(_SKIPPED, text, 0)
    while at < len(text):
        name = _NAME.match(text, at)
        if name is None:
            do = "write NAME=VALUE, with # before a comment, and neither blanks around the = nor a "
            raise _wrong(file, text, at, "this line is no variable", f"{do}byte order mark")
        if name[1] in RESERVED_ENV:
            what = f"{name[1]} is set by sockmgr itself for each worker"
            raise _wrong(file, text, name.start(1), what, "remove it")
        value, end, flaw = _value(text, name.end())
        if flaw:
            what = f"the value of {name[1]} {flaw}"
            do = "write the value in single quotes, or in `env` of the config"
            raise _wrong(file, text, name.end(), what, do)
        found[name[1]] = value
        at = _after(_SKIPPED, text, end)
    return found


def _value(text: str, at: int) -> tuple[str, int, str]:
    """Return the value at an offset, where its line ends, and what is wrong with it."""
    quote, flaw = text[at], ""
    if quote not in _QUOTED:
        end = _after(_LINE, text, at)
        value = text[at:end]
        flaw = next((why for bad, why in _OF_BARE.items() if bad.match(value)), "")
        value = value.rstrip(" \t")
    elif match := _QUOTED[quote].match(text, at):
        end = _after(_LINE, text, match.end())
        value = match[1] if quote == "'" else re.sub(r'\\(["\\])', r"\1", match[1])
        if text[match.end() : end].strip():
            flaw = "has something behind its quotes"
    else:
        return "", at, _OF_QUOTES[quote]
    if "\0" in value or "${" in value:
        flaw = flaw or "has a NUL, or a ${ that some replace by a variable"
    return value, end, flaw


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _wrong(file: str, text: str, at: int, what: str, do: str) -> ConfigError:
    return ConfigError(f"{file}:{positions.position(text, at)}: {what}", do=do)

"""Values of a config with their place in the file, which errors about them name.

Reads the simple types (texts, numbers, durations, sizes) and words every error. Knows no key.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sockmgr.config import positions
from sockmgr.errors import ConfigError
from sockmgr.terminal.format import span

DURATION = 'a duration: seconds, or a text like "1m30s" or "500ms"'
DURATION_PATTERN = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+"
SIZE_PATTERN = r"([0-9]{1,15})([KMGT]?)"
_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_SIZE = re.compile(SIZE_PATTERN, re.ASCII)
LONGEST = 10 * 365 * 86400.0
SHORTEST = 0.001  # seconds: the least of a duration that may not be 0
LARGEST = 2**63 - 1  # rlim_t as Python's resource takes it


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of values: the text of a file, or arguments of the command line."""

    file: str
    text: str = ""
    arguments: Mapping[positions.Path, str] = field(default_factory=dict)

    def place(self, path: positions.Path, *, key: bool) -> str:
        """Return the place of `path` for people: `shop.toml:7:11` or `--workers`."""
        for length in range(len(path), 0, -1):
            if argument := self.arguments.get(path[:length]):
                return argument
        at = positions.find(self.text, path, key=key)
        return f"{self.file}:{at}"

    def beside(self, path: str) -> str:
        """Return a relative `path` as below the directory of the file: `check` may run anywhere."""
        folder, slash, _ = self.file.rpartition("/")
        return f"{folder}{slash}{path}" if slash and path[:1] != "/" else path


class Filled(str):
    """A text in which variables were replaced; errors show it as it was `written`."""

    written = ""


@dataclass(frozen=True, slots=True)
class Value:
    """One value at `path`; its methods return it as a type, or raise ConfigError.

    If it is `secret`, no error shows it or the values below it: they may be passwords.
    """

    source: Source
    path: positions.Path
    raw: object
    secret: bool = False

    @property
    def key(self) -> str:
        """The path as people write it: `service.web.command[0]`."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{_quote_key(part)}"
        return text.removeprefix(".")

    def wrong(self, allowed: str) -> ConfigError:
        """Return the error for a value that is not `allowed`."""
        return self.unusable(f"allowed: {allowed}")

    def unusable(self, do: str) -> ConfigError:
        """Return the error for a value that cannot be used; `do` is the remedy."""
        place = self.source.place(self.path, key=False)
        what = "" if self.secret else f" = {shown(self.raw)}"
        return ConfigError(f"{place}: {self.key}{what} cannot be used", do=do)

    def refused(self, why: str, *, do: str = "") -> ConfigError:
        """Return the error for a key or table that must not be here; `why` follows its name."""
        place = self.source.place(self.path, key=True)
        return ConfigError(f"{place}: {self.key} {why}", do=do)

    def child(self, name: str | int, raw: object) -> Value:
        """Return a value of this table or array: `raw`, under the key or index `name`."""
        return Value(self.source, (*self.path, name), raw, self.secret)

    def entries(self) -> dict[str, Value]:
        """Return the values of a table with any keys."""
        if not isinstance(self.raw, dict):
            raise self.wrong("a table")
        return {name: self.child(name, raw) for name, raw in self.raw.items()}

    def table(self, known: Collection[str]) -> dict[str, Value]:
        """Return the values of a table with only `known` keys."""
        entries = self.entries()
        for name, value in entries.items():
            if name not in known:
                raise value.refused("is not a known key", do=nearest(name, known))
        return entries

    def items(self, allowed: str) -> list[Value]:
        if not isinstance(self.raw, list):
            raise self.wrong(allowed)
        return [self.child(index, raw) for index, raw in enumerate(self.raw)]

    def text(self, allowed: str = "a text", pattern: str = r"[^\0]*") -> str:
        """Return a text that `pattern` matches as a whole."""
        if not isinstance(self.raw, str) or not re.fullmatch(pattern, self.raw, re.DOTALL):
            raise self.wrong(allowed)
        return str(self.raw)

    @property
    def plain(self) -> object:
        """The value where no text is wanted: what variables make is a text, "4" or "true"."""
        if isinstance(self.raw, Filled):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(self.raw)
        return self.raw

    def texts(self, allowed: str = "an array of texts") -> tuple[str, ...]:
        return tuple(item.text() for item in self.items(allowed))

    def boolean(self) -> bool:
        if not isinstance(self.plain, bool):
            raise self.wrong("true or false")
        return self.plain

    def integer(self, minimum: int, maximum: int, allowed: str = "") -> int:
        number = self.plain
        if (
            isinstance(number, int)
            and not isinstance(number, bool)
            and minimum <= number <= maximum
        ):
            return number
        raise self.wrong(allowed or f"a whole number from {minimum} to {maximum}")

    def seconds(self, *, zero: bool = True) -> float:
        found = seconds(self.plain)
        least = 0.0 if zero else SHORTEST
        if found is None or not least <= found <= LONGEST:
            raise self.wrong(DURATION + ("" if zero else ", above 0"))
        return found

    def size(self) -> int:
        """Return a number, with K, M, G or T for powers of 1024; -1 for `unlimited`."""
        match = _SIZE.fullmatch(self.raw) if isinstance(self.raw, str) else None
        if match:
            number = int(match[1]) << 10 * " KMGT".index(match[2] or " ")
        elif self.raw == "unlimited":
            return -1
        else:
            number = self.raw if type(self.raw) is int else -1
        if not 0 <= number <= LARGEST:
            raise self.wrong('a number, a size like "512M", or "unlimited"')
        return number


def shown(raw: object) -> str:
    """Return a value as it is written in a config, cut to 60 characters."""
    try:
        text = json.dumps(_written(raw), ensure_ascii=False)
    except (TypeError, ValueError):  # dates and times, which TOML has and JSON has not
        text = str(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def _written(raw: object) -> object:
    if isinstance(raw, dict):
        return {name: _written(value) for name, value in raw.items()}
    if isinstance(raw, list):
        return list(map(_written, raw))
    return raw.written if isinstance(raw, Filled) else raw


def nearest(name: str, known: Collection[str]) -> str:
    """Return what to do about a name that is not `known`: the nearest one, or all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"known: {', '.join(sorted(known))}"


def _quote_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def seconds(raw: object) -> float | None:
    """Return the seconds of a number or of a text like "1m30s"; None if it is no duration."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int | float):
        return float(raw) if -1 <= raw <= LONGEST + 1 else None  # None for nan, inf, 10**400
    if isinstance(raw, str) and _DURATION.fullmatch(raw):
        return span(raw)
    return None

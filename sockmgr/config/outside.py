"""What a config takes from outside of its text: the environment, and files of variables.

Reads nothing by itself: whoever parses a config says how, so that the same text means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sockmgr.config import env_file
from sockmgr.config.document import Filled, Value
from sockmgr.config.values import ENV_FILE

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^${}]*))?\})?")


@dataclass(frozen=True, slots=True)
class Outside:
    """`read` returns the content of a file that is named relative to here; it raises OSError."""

    environ: Mapping[str, str]
    read: Callable[[str], bytes]


def literal(text: str) -> str:
    """Return `text` so written that no variable is named in it."""
    return text.replace("${", "$${")


def below(variables: Iterable[tuple[str, str]], *places: str) -> set[tuple[str, str]]:
    """Return those of a config's `variables` that it names at some of `places`, or below them."""
    inside = tuple(f"{place}." for place in places)
    return {(at, name) for at, name in variables if f"{at}.".startswith(inside)}


NOTHING = Outside({}, lambda _: b"")


def taken_in(document: Value, outside: Outside) -> tuple[Value, tuple[tuple[str, str], ...]]:
    """Return the config with all that it takes from outside as if it stood there.

    Variables of files become those of `env`, which counts more. Also returns at which places it
    names variables, and which. Raises ConfigError.
    """
    taking = _Taking(outside)
    found = document.entries()
    shared = taking.files(found, outside.environ)
    scope = {**outside.environ, **shared}
    raw: dict[str, object] = {}
    for key, value in found.items():
        if key == "service" and isinstance(value.raw, dict):
            tables = value.entries().items()
            raw[key] = {name: taking.service(each, scope, shared) for name, each in tables}
        else:  # who looks for the manager by its name may not have the variables
            raw[key] = value.raw if key == "name" else taking.filled(value, scope)
    return replace(document, raw=raw), tuple(sorted(taking.named))


@dataclass(frozen=True, slots=True)
class _Taking:
    outside: Outside
    named: set[tuple[str, str]] = field(default_factory=set)
    known: dict[str, dict[str, str]] = field(default_factory=dict)  # the files that were read

    def service(self, value: Value, scope: Mapping[str, str], shared: Mapping[str, str]) -> object:
        if not isinstance(value.raw, dict):
            return value.raw
        found = value.entries()
        given = {**shared, **self.files(found, scope)}
        scope = {**scope, **given}
        raw = {key: self.filled(each, scope) for key, each in found.items()}
        env = raw.get("env", {})
        return raw | {"env": given | env} if given and isinstance(env, dict) else raw

    def filled(self, value: Value, scope: Mapping[str, str]) -> object:
        """Return what a value is with the variables of `scope` in the place of their names."""
        if isinstance(value.raw, dict):
            return {key: self.filled(each, scope) for key, each in value.entries().items()}
        if isinstance(value.raw, list):
            return [self.filled(each, scope) for each in value.items("")]
        if not isinstance(value.raw, str) or "${" not in value.raw:
            return value.raw
        at = ".".join(map(str, value.path))

        def text(match: re.Match[str]) -> str:
            name, default = match.groups()
            if match[0] == "$${":
                return "${"
            if name is None:
                do = "write ${NAME} or ${NAME:-DEFAULT}, or $${ where the text ${ itself is meant"
                raise value.refused("has a ${ that begins no name of a variable", do=do)
            self.named.add((at, name))
            if default is None and name not in scope:
                do = f"set it where this runs, or in an env_file; or write ${{{name}:-DEFAULT}}"
                raise value.refused(f"names the variable {name}, which is not set", do=do)
            return scope.get(name, "") or default or ""

        filled = Filled(_REFERENCE.sub(text, value.raw))
        filled.written = value.raw
        return filled

    def files(self, table: dict[str, Value], scope: Mapping[str, str]) -> dict[str, str]:
        """Take env_file out of a table; return the variables of its files, the last counts most."""
        found: dict[str, str] = {}
        if (value := table.pop("env_file", None)) is None:
            return found
        raw = self.filled(value, scope)
        names = ENV_FILE.read(replace(value, raw=raw))
        for name, each in zip(names, raw if isinstance(raw, list) else [raw], strict=True):
            path = value.source.beside(name.removesuffix("?"))
            told = each.written if isinstance(each, Filled) else path
            try:
                if path not in self.known:
                    self.known[path] = env_file.parse(self.outside.read(path), told)
                found |= self.known[path]
            except OSError as error:
                if isinstance(error, FileNotFoundError) and name.endswith("?"):
                    continue
                why = f"names {told}, which cannot be read: {error.strerror}"
                do = "name a file of 1 MiB at most; one with a ? behind its name may be missing"
                if isinstance(error, PermissionError):
                    do = f"let the manager's user do so: chgrp GROUP {told}; chmod 640 {told}"
                raise value.refused(why, do=do) from None
        return found

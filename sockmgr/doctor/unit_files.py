"""Read installed units as systemd does: a file and its drop-ins, and the settings of both.

Reads files only, and asks no running systemd: systemd.unit(5), systemd.syntax(7).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.doctor.finding import Check, Finding
from sockmgr.init.foreign.form import ini
from sockmgr.systemd.units import is_ours

# Of files with one name, that in the first of these directories counts: systemd.unit(5).
DIRECTORIES = tuple(
    Path(each, "systemd/system") for each in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_TRUE = ("1", "yes", "y", "true", "t", "on")
_SPECIFIER = re.compile(r"%([iIjnNpt%])")
Settings = Mapping[tuple[str, str], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFile:
    """One unit with its `settings`, drop-ins included. `text` is that of its main file alone."""

    name: str
    path: Path
    text: str
    settings: Settings = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether `sockmgr units` wrote the main file and nobody has changed it since."""
        return is_ours(self.text)

    def all(self, section: str, key: str) -> Sequence[str]:
        return self.settings.get((section, key), ())

    def last(self, section: str, key: str, default: str = "") -> str:
        """Return the value that counts of a key which has only one."""
        found = self.all(section, key)
        return found[-1] if found else default

    def is_on(self, section: str, key: str) -> bool:
        return self.last(section, key).lower() in _TRUE

    def words(self, key: str) -> list[str]:
        """Return the words of all lines of a key of [Service], unquoted."""
        return [word for line in self.all("Service", key) for word in split(line)]

    def finding(self, check: Check, what: str, why: str, fix: str) -> Finding:
        return check.found(subject=str(self.path), what=f"{self.name}: {what}", why=why, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The .service that runs the manager of a config, and its .socket units."""

    service: UnitFile
    sockets: Sequence[UnitFile]


def installed(config: Path, directories: Sequence[Path]) -> tuple[Installed, ...]:
    """Return the services in these directories that run `sockmgr` with the file `config`."""
    found: dict[str, Installed] = {}
    for path in _files(directories, "*.service"):
        for name in _runs(path, config):
            service = read(name, path, directories)
            sockets = tuple(_sockets(service, directories))
            found.setdefault(name, Installed(service=service, sockets=sockets))
    return tuple(found.values())


def of_text(name: str, text: str) -> UnitFile:
    """Return the unit of a text, without drop-ins."""
    return UnitFile(name=name, path=Path(name), text=text, settings=_settings([text], name))


def read(name: str, path: Path, directories: Sequence[Path]) -> UnitFile:
    """Return the unit `name`, whose main file is `path`, with its drop-ins."""
    text = _text(path)
    drop_ins: dict[str, Path] = {}
    template = re.sub(r"@.*(?=\.)", "@", name)
    for folder in (f"{name}.d", f"{template}.d"):
        for directory in directories:
            for each in sorted((directory / folder).glob("*.conf")):
                drop_ins.setdefault(each.name, each)
    texts = [text, *(_text(drop_ins[key]) for key in sorted(drop_ins))]
    return UnitFile(name=name, path=path, text=text, settings=_settings(texts, name))


def split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # systemd ignores such a line, with a warning
        return []


def is_zero(time: str) -> bool:
    """Return whether a time span or a number is 0, with which systemd switches a limit off."""
    return re.fullmatch(r"0+\s*[a-z]*", time) is not None


def program(service: UnitFile) -> list[str]:
    """Return the words of ExecStart=, without the prefixes of the first: systemd.service(5)."""
    words = [word.replace("$$", "$") for word in service.words("ExecStart")]
    return [words[0].lstrip("@-:+!"), *words[1:]] if words else []


# --- Which unit ----------------------------------------------------------------------------------


def _runs(path: Path, config: Path) -> Iterator[str]:
    """Yield the names under which the service in `path` runs `sockmgr` with this config."""
    text = _text(path)
    if "sockmgr" not in text:
        return
    name = path.name
    if "@." in name:
        # Of a template, try the instance that is called as the config file.
        name = name.replace("@.", f"@{config.stem}.")
    found = _config_of(of_text(name, text))
    if found is not None and os.path.realpath(found) == os.path.realpath(config):
        yield name


def given_config(words: Sequence[str]) -> str:
    """Return the config that a command names by -c or --config, "" if it names none."""
    given = ""
    for index, word in enumerate(words):
        if word in ("-c", "--config"):
            given = "".join(words[index + 1 : index + 2])
        elif word.startswith("--config="):
            given = word.partition("=")[2]
    return given


def _config_of(service: UnitFile) -> Path | None:
    words = program(service)
    if "run" not in words or not any("sockmgr" in word for word in words[: words.index("run")]):
        return None
    given = given_config(words) or "sockmgr.toml"
    return Path(service.last("Service", "WorkingDirectory", "/"), given)


def _sockets(service: UnitFile, directories: Sequence[Path]) -> Iterator[UnitFile]:
    wanted = [word for line in service.all("Service", "Sockets") for word in line.split()]
    instance = service.name.removesuffix(".service").partition("@")[2]
    for path in _files(directories, "*.socket"):
        name = path.name.replace("@.", f"@{instance}.") if instance else path.name
        if "@." in name:
            continue
        unit = read(name, path, directories)
        default = name.removesuffix(".socket") + ".service"
        if name in wanted or unit.last("Socket", "Service", default) == service.name:
            yield unit


def _files(directories: Sequence[Path], pattern: str) -> Iterator[Path]:
    seen: set[str] = set()
    for directory in directories:
        for path in sorted(directory.glob(pattern)):
            if path.name not in seen:
                seen.add(path.name)
                yield path


# --- What is in a file ---------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # a link to nowhere or to /dev/null, or not permitted
        return ""


def _settings(texts: Sequence[str], name: str) -> Settings:
    found: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        for one in ini(text):
            values = found.setdefault((one.section, one.name), [])
            # An empty value resets the list: systemd.syntax(7).
            if value := str(one.value):
                values.append(_specified(value, name))
            else:
                values.clear()
    return found


def _specified(value: str, name: str) -> str:
    stem = name.rpartition(".")[0]
    prefix, _, instance = stem.partition("@")
    meant = {
        "%": "%", "i": instance, "I": instance, "n": name, "N": stem, "p": prefix,
        "j": prefix.rpartition("-")[2], "t": "/run",
    }  # fmt: skip
    return _SPECIFIER.sub(lambda match: meant[match[1]], value)

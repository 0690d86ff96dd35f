"""Read the launchers before a program in its command, and whether it gets its listeners. Pure.

A launcher that becomes the program (`env`, `nice`) keeps the pid, as LISTEN_PID demands. One that
starts the program as a child (`uv run`, `tini`) does not, and some close the descriptors as well.
Each fact about a launcher was seen with the launcher itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sockmgr.launch import shell

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
PYTHON = re.compile(r"python[0-9.]*|pypy[0-9.]*")
_SHELL = re.compile(r"(?:ba|da|a|z|k)?sh")
_ANY = ("*",)  # each option has a value


class Way(StrEnum):
    """How a launcher starts what it launches."""

    BECOMES = "becomes"
    CHILD = "child"
    CLOSES = "closes"  # as a child, without descriptors above 2
    LEAVES = "leaves"  # as a child, and ends at once


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launcher:
    """How the words of a launcher are read: its options, then the command that it launches.

    `calls` are its subcommands, such as ("run",): if there are any, one of them must follow the
    options, and more options may follow it. `valued` are the options with a value in the next word
    (_ANY: all that begin with --). `takes` is the number of its own words after the options. With
    `chooses` it looks for the program in an environment of its own, not in PATH; with `modules` it
    understands `-m`.
    """

    way: Way = Way.BECOMES
    calls: tuple[tuple[str, ...], ...] = ()
    valued: tuple[str, ...] = ()
    takes: int = 0
    chooses: bool = False
    modules: bool = False


_UV = (
    "--extra", "--no-extra", "--group", "--no-group", "--only-group", "--env-file", "--with", "-w",
    "--with-editable", "--with-requirements", "--package", "-p", "--python", "--python-platform",
    "--index", "--default-index", "-i", "--index-url", "--extra-index-url", "-f", "--find-links",
    "--index-strategy", "--keyring-provider", "--resolution", "--prerelease", "--fork-strategy",
    "--exclude-newer", "--link-mode", "-C", "--config-setting", "--no-build-isolation-package",
    "--no-build-package", "--no-binary-package", "-P", "--upgrade-package", "--reinstall-package",
    "--refresh-package", "--cache-dir", "--color", "--allow-insecure-host", "--project",
    "--directory", "--config-file", "--from",
)  # fmt: skip
_OF_PROJECT = _Launcher(
    calls=(("run",),), valued=("-C", "--directory", "-P", "--project"), chooses=True
)
_INIT = _Launcher(way=Way.CHILD, valued=("-e", "-p", "-r", "--rewrite"))
KNOWN = {
    "env": _Launcher(valued=("-u", "--unset", "-C", "--chdir", "-a", "--argv0")),
    "nice": _Launcher(valued=("-n", "--adjustment")),
    "ionice": _Launcher(valued=("-c", "--class", "-n", "--classdata")),
    "taskset": _Launcher(takes=1),
    "nohup": _Launcher(),
    "stdbuf": _Launcher(valued=("-i", "-o", "-e", "--input", "--output", "--error")),
    "gosu": _Launcher(takes=1),
    "su-exec": _Launcher(takes=1),
    # As leader of its process group, which a worker is, setsid(1) forks and ends at once.
    "setsid": _Launcher(way=Way.LEAVES),
    "time": _Launcher(way=Way.CHILD, valued=("-f", "--format", "-o", "--output")),
    "timeout": _Launcher(way=Way.CHILD, valued=("-k", "--kill-after", "-s", "--signal"), takes=1),
    "tini": _INIT,
    "tini-static": _INIT,
    "docker-init": _INIT,
    "catatonit": _INIT,
    "dumb-init": _INIT,
    "uv": _Launcher(
        way=Way.CHILD, calls=(("run",), ("tool", "run")), valued=_UV, chooses=True, modules=True
    ),
    "uvx": _Launcher(way=Way.CHILD, valued=_UV, chooses=True),
    "poetry": _OF_PROJECT,
    "pipenv": _OF_PROJECT,
    "pdm": replace(
        _OF_PROJECT, way=Way.CHILD,
        valued=("-p", "--project", "-S", "-k", "--skip", "--venv"),
    ),
    "hatch": replace(
        _OF_PROJECT, way=Way.CLOSES, valued=("-e", "--env", "-p", "--project", "--data-dir")
    ),
    "npx": _Launcher(way=Way.CLOSES, valued=("-p", "--package", "-w", "--workspace"), chooses=True),
    "npm": _Launcher(way=Way.CLOSES, calls=(("start",), ("run",), ("exec",)), chooses=True),
    "pnpm": _Launcher(way=Way.CLOSES, chooses=True),
    "yarn": _Launcher(way=Way.CLOSES, chooses=True),
    "bundle": _Launcher(calls=(("exec",),), valued=("--gemfile",), chooses=True),
    "opentelemetry-instrument": _Launcher(valued=_ANY),
    "ddtrace-run": _Launcher(),
    "newrelic-admin": _Launcher(calls=(("run-program",),)),
    "debugpy": _Launcher(
        valued=("--listen", "--connect", "--log-to", "--configure-subProcess",
                "--adapter-access-token"),
        modules=True,
    ),
    "coverage": _Launcher(
        calls=(("run",),),
        valued=("--rcfile", "--include", "--omit", "--source", "--data-file", "--context",
                "--concurrency"),
        modules=True,
    ),
    "sockmgr.exec": _Launcher(),
}  # fmt: skip
_MODULES = {"newrelic.admin": "newrelic-admin", "ddtrace.commands.ddtrace_run": "ddtrace-run"}
_PYTHON_VALUED = ("-X", "-W", "--check-hash-based-pycs")
_MODULE = re.compile(r"-[A-Za-z]*m|--module")
_OF_NO_PROJECT = ("uvx", "npx")
_ELSEWHERE = re.compile(r"tool|-w|-C|-p|(?:--with|--project|--directory|--from|--venv)(?:[-=].*)?")
_OF_LISTENERS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@dataclass(frozen=True, slots=True)
class _Line:
    """The words of `sh -c TEXT`; the shell becomes `command`, the last one in the text.

    `before` are the words up to the text, `after` those behind it.
    """

    before: tuple[str, ...]
    text: str
    command: shell.Command
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command taken apart: the words `before`, the word of the `program`, and its `args`.

    `is_module`: the program is a module behind `-m`. `python` is the word of its interpreter, ""
    if there is none. `way` is the worst way of all launchers, and `by` the name of that launcher.
    `keeps_env` is false if a launcher drops LISTEN_FDS. `chosen`: a launcher, not PATH, decides
    which file the program is. `elsewhere`: the launcher does not look in the project's `.venv`.
    """

    before: tuple[str, ...] = ()
    program: str
    args: tuple[str, ...] = ()
    is_module: bool = False
    python: str = ""
    way: Way = Way.BECOMES
    by: str = ""
    keeps_env: bool = True
    chosen: bool = False
    elsewhere: bool = False
    line: _Line | None = None

    @property
    def name(self) -> str:
        """The program's name, without its directory, version (uvx) or environment (hatch)."""
        name = self.program.rpartition("/")[2]
        return name.rpartition(":")[2].partition("@")[0] if self.chosen else name

    @property
    def passes_listen_fds(self) -> bool:
        """Whether LISTEN_FDS reaches the program, with its own pid in LISTEN_PID."""
        return self.way is Way.BECOMES and self.keeps_env

    def argv(self, extra: Sequence[str] = (), *, instead: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the whole command, with `extra` before the program's own arguments.

        `instead` are words that replace the program's word, and the `-m` before it.
        """
        words = (*self.before, self.program, *self.args)
        if self.line:
            return self._shell_argv(self.line, extra, instead)
        return _inserted(words, len(self.before), extra, instead, is_module=self.is_module)

    def _shell_argv(
        self, line: _Line, extra: Sequence[str], instead: Sequence[str]
    ) -> tuple[str, ...]:
        if not extra and not instead and shell.becomes(line.command):
            return (*line.before, line.text, *line.after)
        words = tuple(word.raw for word in shell.program(line.command))
        inserted = _inserted(
            words,
            len(self.before),
            tuple(map(_quoted, extra)),
            tuple(map(_quoted, instead)),
            is_module=self.is_module,
        )
        start = line.text[: line.command.start]
        sets = (word.raw for word in line.command.sets)
        text = " ".join((*sets, "exec", *inserted, *line.command.redirections))
        return (*line.before, start + text, *line.after)


def _inserted(
    words: tuple[str, ...],
    at: int,
    extra: Sequence[str],
    instead: Sequence[str],
    *,
    is_module: bool,
) -> tuple[str, ...]:
    before, after = words[:at], words[at + 1 :]
    if not instead:
        return (*before, words[at], *extra, *after)
    if is_module:
        rest = before[-1].removesuffix("m")
        before = (*before[:-1], *((rest,) if len(rest) > 1 and rest[1] != "-" else ()))
    return (*before, *instead, *extra, *after)


def _quoted(word: str) -> str:
    plain = re.sub(r"[{}]", "", word)  # {NAME} becomes a number, and needs no quotes
    return word if shlex.quote(plain) == plain else shlex.quote(word)


def read(argv: Sequence[str]) -> CommandLine:
    """Return the program that `argv` runs in the end: its first word, if that is no launcher."""
    return _Reader(tuple(argv)).read()


class _Reader:
    """Reads the words of one command, launcher by launcher."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words, self._at = words, 0
        self._found = CommandLine(program=words[0] if words else "")

    def read(self) -> CommandLine:
        whole = replace(self._found, args=self._words[1:])
        while self._at < len(self._words):
            name = self._name()
            if _SHELL.fullmatch(name):
                return self._line() or whole
            if PYTHON.fullmatch(name):
                if not self._python():
                    return whole
            elif name not in KNOWN:
                break
            elif not self._launcher(name, KNOWN[name]):
                return whole
        if self._at >= len(self._words):  # `npm start`: package.json has the program
            return replace(whole, way=self._found.way, by=self._found.by)
        at = self._at
        return replace(
            self._found, before=self._words[:at], program=self._words[at],
            args=self._words[at + 1 :],
        )  # fmt: skip

    def _name(self) -> str:
        word = self._words[self._at]
        return _MODULES.get(word, word.rpartition("/")[2])

    def _next(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _python(self) -> bool:
        """Skip to the script or module that an interpreter runs; False if it runs neither."""
        self._found = replace(self._found, python=self._words[self._at], is_module=False)
        self._at += 1
        while (option := self._next()).startswith("-") and not _MODULE.fullmatch(option):
            if option in ("-", "-c"):
                return False
            self._at += 2 if option in _PYTHON_VALUED else 1
        self._module()
        return True

    def _module(self) -> None:
        if _MODULE.fullmatch(self._next()):
            self._at += 1
            self._found = replace(self._found, is_module=True)

    def _launcher(self, name: str, launcher: _Launcher) -> bool:
        """Skip to the command that a launcher launches; False if it launches none."""
        start = self._at
        self._found = replace(self._found, is_module=False)
        self._at += 1
        self._options(launcher)
        if launcher.calls:
            follows = self._words[self._at :]
            call = next((one for one in launcher.calls if follows[: len(one)] == one), None)
            if call is None:
                return False
            self._at += len(call)
            self._options(launcher)
        self._at += launcher.takes
        if launcher.modules:
            self._module()
        self._note(name, launcher, self._words[start : self._at])
        return True

    def _options(self, launcher: _Launcher) -> None:
        is_env = launcher is KNOWN["env"]
        while (word := self._next()).startswith("-") or (is_env and _ASSIGNMENT.match(word)):
            if launcher.modules and _MODULE.fullmatch(word):
                return
            if is_env and word.partition("=")[0] in ("-S", "--split-string"):
                self._split(word)
                continue
            valued = word in launcher.valued or (launcher.valued is _ANY and word[:2] == "--")
            self._at += 2 if valued and "=" not in word and word != "--" else 1
            if word == "--":
                return

    def _split(self, word: str) -> None:
        """Replace `env -S TEXT` by the words of its text."""
        behind = self._at + (1 if "=" in word else 2)
        text = word.partition("=")[2] or " ".join(self._words[self._at + 1 : self._at + 2])
        try:
            words = shlex.split(text)
        except ValueError:
            words = []
        self._words = (*self._words[: self._at], *words, *self._words[behind:])

    def _note(self, name: str, launcher: _Launcher, words: tuple[str, ...]) -> None:
        found, way = self._found, launcher.way
        if name == "setsid" and {"-w", "--wait"}.intersection(words):
            way = Way.CHILD
        if name == "sockmgr.exec" and found.way is Way.CHILD:
            if "--keep-listen-pid" not in words:
                found = replace(found, way=Way.BECOMES, by="")  # it corrects LISTEN_PID
        elif _SEVERITY.index(way) > _SEVERITY.index(found.way):
            found = replace(found, way=way, by=name)
        if name == "env" and _drops(words):
            found = replace(found, keeps_env=False)
        elsewhere = name in _OF_NO_PROJECT or any(map(_ELSEWHERE.fullmatch, words))
        self._found = replace(
            found,
            chosen=found.chosen or launcher.chooses,
            elsewhere=found.elsewhere or (launcher.chooses and elsewhere),
        )

    def _line(self) -> CommandLine | None:
        """Return the last program in the line of a shell, if the shell can become that program."""
        self._at += 1
        while (option := self._next()).startswith("-") and not option.endswith("c"):
            self._at += 1
        text = "".join(self._words[self._at + 1 : self._at + 2])
        commands = shell.parse(text) if option.endswith("c") else None
        command = shell.last(commands) if commands else None
        if command is None or not (words := shell.program(command)):
            return None
        inner = read([word.text for word in words])
        if inner.line or inner.argv() != tuple(word.text for word in words):
            return None
        outer = self._found
        worst = max(inner, outer, key=lambda one: _SEVERITY.index(one.way))
        return replace(
            inner,
            way=worst.way,
            by=worst.by,
            keeps_env=inner.keeps_env and outer.keeps_env,
            chosen=inner.chosen or outer.chosen,
            elsewhere=inner.elsewhere or outer.elsewhere,
            line=_Line(self._words[: self._at + 1], text, command, self._words[self._at + 2 :]),
        )


_SEVERITY = (Way.BECOMES, Way.CHILD, Way.LEAVES, Way.CLOSES)


def _drops(words: tuple[str, ...]) -> bool:
    """Return whether these options of env(1) drop the variables that announce the listeners."""
    text = " ".join(words)
    unset = "|".join(_OF_LISTENERS)
    return bool(
        re.search(rf" (?:-|-i|--ignore-environment|(?:-u ?|--unset[= ])(?:{unset}))(?: |$)", text)
    )

"""What known servers need to run as workers on sockets that are not theirs. Runs nothing.

Each rule here was seen to hold with the server itself; tests/kernel/test_presets.py does it again.
Arguments are put right behind the program's name, so that what the user wrote comes later and wins.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sockmgr.core import placeholder
from sockmgr.core.errors import ConfigError

LAUNCHER = str(Path(__file__).with_name("launch_granian.py"))
RELOAD = "--reload: it restarts by itself and closes connections; leave it out, sockmgr reloads"
_PYTHON = re.compile(r"python[0-9.]*")
_PYTHON_FLAGS_WITH_VALUE = ("-X", "-W")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a preset may look at: a service's listeners, by name and in order, and its surroundings.

    `drain_timeout` is how long the manager waits for a worker to end. `find` returns the file that
    a program's name stands for, None if there is none.
    """

    service: str
    listen: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    drain_timeout: float
    find: Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A command made fit to be a worker, and what is known of how it ends.

    `env` are variables to set unless the config does; `warnings` say which arguments lose requests.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    stop_signal: int = signal.SIGTERM
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A command split behind the program that a preset is for.

    `head` ends with the program's name, or with `-m NAME`. `execs` is false if a process that stays
    (`uv run`) stands between, so that the pid which LISTEN_PID would have to be is not known.
    """

    name: str
    head: tuple[str, ...]
    args: tuple[str, ...]
    execs: bool = True

    def has(self, *options: str) -> bool:
        """Tell whether one of `options` is given: `--option`, `--option=x`, `-o`, `-ox`."""
        return self.value(*options) is not None

    def value(self, *options: str) -> str | None:
        """Return the value of the last of `options` that is given; "" if it has none."""
        found = None
        for index, text in enumerate(self.args):
            following = self.args[index + 1] if index + 1 < len(self.args) else ""
            for option in options:
                if text == option:
                    found = following
                elif text.startswith(f"{option}=") and option.startswith("--"):
                    found = text.partition("=")[2]
                elif text.startswith(option) and not option.startswith("--"):
                    found = text[2:]
        return found


def fit(argv: tuple[str, ...], situation: Situation, *, preset: str = "auto") -> Fit:
    """Return `argv` fitted by the preset for its program, or by the one named; "none" for none."""
    if preset == "none":
        return Fit(name="none", argv=argv)
    call = recognise(argv)
    if call is None or preset not in ("auto", call.name):
        if preset == "auto":
            return Fit(name="none", argv=argv)
        call = Call(preset, argv[:1], argv[1:])
    return _PRESETS[call.name](call, situation)


def recognise(argv: tuple[str, ...]) -> Call | None:
    """Find the known server in `argv`, looking through `env`, `uv run` and `python -m`."""
    at, execs = 0, True
    while at < len(argv):
        name = Path(argv[at]).name
        if name == "env":
            at += 1
            while at < len(argv) and re.match(r"[A-Za-z_]\w*=", argv[at]):
                at += 1
        elif name == "uv" and argv[at + 1 : at + 2] == ("run",):
            at, execs = at + 2, False
            at += argv[at : at + 1] == ("--",)
        elif _PYTHON.fullmatch(name):
            return _python(argv, at, execs=execs)
        else:
            return _call(argv, at, name, execs=execs)
    return None


def _python(argv: tuple[str, ...], at: int, *, execs: bool) -> Call | None:
    at += 1
    while at < len(argv) and argv[at].startswith("-") and argv[at] != "-m":
        at += 2 if argv[at] in _PYTHON_FLAGS_WITH_VALUE else 1
    if argv[at : at + 1] != ("-m",) or at + 1 >= len(argv):
        return None
    return _call(argv, at + 1, argv[at + 1], execs=execs)


def _call(argv: tuple[str, ...], at: int, name: str, *, execs: bool) -> Call | None:
    name = "uwsgi" if name == "pyuwsgi" else name
    if name not in _PRESETS:
        return None
    return Call(name, argv[: at + 1], argv[at + 1 :], execs)


# --- The servers -------------------------------------------------------------------------------


def _uvicorn(call: Call, situation: Situation) -> Fit:
    extra: list[str] = []
    if situation.listen and not placeholder.names(call.args):
        extra += ["--fd", _only_one(situation, "uvicorn")]
    if not _set(call, situation, "--workers"):
        extra += ["--workers", "1"]  # or WEB_CONCURRENCY would multiply our workers
    if not _set(call, situation, "--timeout-graceful-shutdown"):
        # Without it uvicorn waits for ever for a client that never ends (Kludex/uvicorn#2943).
        extra += ["--timeout-graceful-shutdown", _below(situation.drain_timeout)]
    return Fit(
        name="uvicorn",
        argv=(*call.head, *extra, *call.args),
        # It drains, then kills itself by the signal it got (uvicorn/server.py, capture_signals).
        clean_exits=frozenset({0, -signal.SIGTERM, -signal.SIGINT}),
        broken_exits=frozenset({1, 3}),
        warnings=_warnings(
            call,
            (call.has("--reload"), RELOAD),
            (
                _several(call.value("--workers")),
                "--workers above 1: its own manager has no limit for a worker that does not end; "
                "use the key workers instead",
            ),
        ),
    )


def _gunicorn(call: Call, situation: Situation) -> Fit:
    extra: list[str] = []
    named = bool(placeholder.names(call.args))
    if not call.execs and not named:
        extra += _each(situation, "--bind", "fd://{}")
        named = bool(extra)
    if not _in_gunicorn_config(call, situation, "--graceful-timeout"):
        extra += ["--graceful-timeout", _below(situation.drain_timeout)]
    if not call.has("--control-socket", "--no-control-socket") and (
        _version(call, situation) >= (25, 1)
    ):
        # One path for all of them: the second takes it over, the first deletes it at its end.
        extra.append("--no-control-socket")
    return Fit(
        name="gunicorn",
        argv=(*call.head, *extra, *call.args),
        # The default of its --workers, so that -w or a config file can still say otherwise.
        env=(("WEB_CONCURRENCY", "1"),),
        broken_exits=frozenset({3, 4}),
        warnings=_warnings(
            call,
            (call.has("--reload"), RELOAD),
            (
                call.has("--reuse-port"),
                "--reuse-port: it binds sockets of its own and loses what waits there when it "
                "ends; leave it out",
            ),
            (
                call.has("-b", "--bind") and not named,
                "--bind: it has no effect beside the listeners that are handed over; leave it out",
            ),
            (
                named,
                "--bind fd://: it deletes the path of a unix listener when it ends; leave it out "
                "and run it without a wrapper, so that it takes all listeners by LISTEN_FDS",
            ),
        ),
    )


def _in_gunicorn_config(call: Call, situation: Situation, option: str) -> bool:
    """Tell whether `option` is given, or may be in a config file, over which ours would win."""
    words = tuple(situation.env.get("GUNICORN_CMD_ARGS", "").split())
    given = replace(call, args=(*words, *call.args))
    return given.has("-c", "--config", option) or Path(situation.cwd, "gunicorn.conf.py").exists()


def _uwsgi(call: Call, situation: Situation) -> Fit:
    extra: list[str] = []
    if situation.listen and not placeholder.names(call.args):
        if not call.execs:
            extra += _each(situation, "--http-socket", "fd://{}")
        elif not call.has("--protocol", "--socket-protocol"):
            extra += ["--protocol", "http"]
    if not call.has("--master", "-M"):
        extra.append("--master")
    if not any("gracefully_kill_them_all" in text for text in call.args):
        # Its TERM is a brutal reload, and with --die-on-term a brutal end (unbit/uwsgi#2240). The
        # hook wins over both.
        extra += ["--hook-master-start", f"unix_signal:{signal.SIGTERM:d} gracefully_kill_them_all"]
    if not call.has("--need-app"):
        extra.append("--need-app")  # or broken code starts, and answers every request with 500
    return Fit(
        name="uwsgi",
        argv=(*call.head, *extra, *call.args),
        clean_exits=frozenset({0, 30}),  # 30: when it has no master
        broken_exits=frozenset({1, 22}),
        warnings=_warnings(
            call,
            (
                call.has("--shutdown-sockets"),
                "--shutdown-sockets: it shuts the listener down for every worker; leave it out",
            ),
            (
                call.has("--reuse-port", "--http", "--socket", "-s"),
                "--http, --socket and --reuse-port: they open sockets of its own, which refuse "
                "connections when it ends; leave them out",
            ),
        ),
    )


def _hypercorn(call: Call, situation: Situation) -> Fit:
    extra: list[str] = []
    if not placeholder.names(call.args):
        extra += _each(situation, "--bind", "fd://{}")
    if not call.has("-w", "--workers"):
        extra += ["--workers", "0"]  # no process of its own above the one that serves
    if not call.has("--graceful-timeout"):
        extra += ["--graceful-timeout", _below(situation.drain_timeout)]
    return Fit(
        name="hypercorn",
        argv=(*call.head, *extra, *call.args),
        broken_exits=frozenset({1}),
        warnings=_warnings(
            call,
            (call.has("--reload"), RELOAD),
            (
                _several(call.value("-w", "--workers")),
                "--workers above 1: the first that ends makes it kill the others, with their "
                "requests; use the key workers instead",
            ),
        ),
    )


def _granian(call: Call, situation: Situation) -> Fit:
    extra: list[str] = []
    head = call.head
    if situation.listen:
        python = _python_of(call, situation)
        if not python:
            raise ConfigError(
                f"service.{situation.service}.command: cannot tell which Python runs "
                f"{call.head[-1]}, which is needed to give it a listener",
                do='name it: command = ["/path/to/python", "-m", "granian", ...]',
            )
        head = (*head[:-2], LAUNCHER) if head[-2:-1] == ("-m",) else (*head[:-1], python, LAUNCHER)
        if not call.has("--fd"):
            extra += ["--fd", _only_one(situation, "granian")]
    if not _set(call, situation, "--workers"):
        extra += ["--workers", "1"]
    if not _set(call, situation, "--workers-kill-timeout"):
        extra += ["--workers-kill-timeout", _below(situation.drain_timeout)]
    return Fit(
        name="granian",
        argv=(*head, *extra, *call.args),
        broken_exits=frozenset({1}),
        warnings=_warnings(call, (call.has("--reload"), RELOAD)),
    )


# --- What they share ---------------------------------------------------------------------------


def _only_one(situation: Situation, server: str) -> str:
    """Return the placeholder of the one listener, for a server that can serve no more."""
    if len(situation.listen) > 1:
        raise ConfigError(
            f"service.{situation.service}.listen = {list(situation.listen)} cannot be used: "
            f"{server} serves one listener",
            do="leave one in listen, and give the others to services of their own",
        )
    return f"{{{situation.listen[0]}}}"


def _each(situation: Situation, option: str, form: str) -> list[str]:
    return [
        text for name in situation.listen for text in (option, form.replace("{}", f"{{{name}}}"))
    ]


def _below(drain_timeout: float) -> str:
    """Return whole seconds below the manager's own limit, so that the server ends by itself."""
    return str(max(1, int(drain_timeout - 1)))


def _set(call: Call, situation: Situation, option: str) -> bool:
    """Tell whether `option` is given, or set by the variable that click reads for it."""
    variable = f"{call.name}_{option[2:]}".upper().replace("-", "_")
    return call.has(option) or variable in situation.env


def _several(workers: str | None) -> bool:
    return workers is not None and workers.isdecimal() and int(workers) > 1


def _warnings(call: Call, *found: tuple[bool, str]) -> tuple[str, ...]:
    return tuple(f"{call.name} {text}" for applies, text in found if applies)


def _python_of(call: Call, situation: Situation) -> str:
    """Return the interpreter that runs the server, as a word for argv; "" if it is not clear."""
    if not call.execs:
        return "python"  # uv run finds the one of the project
    if call.head[-2:-1] == ("-m",):
        return next(word for word in call.head if _PYTHON.fullmatch(Path(word).name))
    return shebang(situation.find(call.head[-1]))


def shebang(script: str | None) -> str:
    """Return the Python that a script names in its first lines; "" if it names none."""
    try:
        with Path(script or "").open("rb") as file:
            lines = file.read(4096).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    # pip and uv write the second form when the path is too long for the kernel.
    for line, form in zip(
        lines, (r"#!\s*(\S+)", r"'''exec' \"?([^\"]+?)\"? \"\$0\""), strict=False
    ):
        match = re.match(form, line)
        if match and _PYTHON.fullmatch(Path(match[1]).name):
            return match[1]
    return ""


def _version(call: Call, situation: Situation) -> tuple[int, ...]:
    """Return the oldest version of the server beside its interpreter, () if none is found.

    Read from the names of the installed metadata: to ask the program itself takes a whole start.
    """
    python = situation.find(_python_of(call, situation) or "python")
    home = Path(situation.cwd, ".venv") if not call.execs else Path(python or "").parent.parent
    found = [
        tuple(int(number) for number in re.findall(r"\d+", entry.name.split("-")[1])[:3])
        for folder in ("site-packages", "dist-packages")
        for entry in home.glob(f"lib/python3*/{folder}/{call.name}-*-info")
    ]
    return min(found, default=())


_PRESETS: dict[str, Callable[[Call, Situation], Fit]] = {
    "uvicorn": _uvicorn,
    "gunicorn": _gunicorn,
    "uwsgi": _uwsgi,
    "hypercorn": _hypercorn,
    "granian": _granian,
}

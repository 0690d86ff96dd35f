"""What known servers need to run as workers on sockets that are not theirs. Runs nothing.

Each rule here was seen to hold with the server itself; tests/launch/test_presets.py does it again.
Arguments are put right behind the program's name, so that what the user wrote comes later and wins.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sockmgr.config import placeholder, servers
from sockmgr.config.config import ServiceConfig
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.servers import Server, Work
from sockmgr.errors import ConfigError
from sockmgr.kernel.regular import first_bytes
from sockmgr.launch import launchers
from sockmgr.launch.call import Call, last_value, recognise
from sockmgr.launch.launchers import PYTHON, Launch, Way

LOCAL = "127.0.0.1,::1,::ffff:127.0.0.1"
LAUNCHER = str(Path(__file__).parents[1] / "programs" / "launch_granian.py")
RELOAD = "--reload: it restarts by itself and closes connections; leave it out, sockmgr reloads"
_LOSES = {
    Way.CLOSES: "it closes the descriptors of what it starts, so no listener gets there; call the "
    "program by its own path",
    Way.LEAVES: "it ends at once and leaves what it starts to itself; leave it out, each worker "
    "leads a process group of its own anyway",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a preset may look at: a service's listeners, by name and in order, and its surroundings.

    `addresses` are those of the listeners, without scheme. `drain_timeout` is how long the manager
    waits for a worker to end. `find` returns the file that a program's name stands for, None if
    there is none.
    """

    service: str
    listen: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    drain_timeout: float
    find: Callable[[str], str | None]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A command made fit to be a worker, and what is known of how it ends.

    `env` are variables to set unless the config does; `warnings` say which arguments lose requests.
    `is_told` is false if LISTEN_FDS does not reach the program, or another pid than the worker's.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    stop_signal: int = signal.SIGTERM
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()
    is_told: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addition:
    """What a preset adds to a command: arguments, words in place of the program's, variables."""

    extra: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[bool, str], ...] = ()


def fit(argv: tuple[str, ...], situation: Situation, *, preset: str = "auto") -> Fit:
    """Return `argv` fitted by the preset for its program, or by the one named; "none" for none."""
    launch = launchers.read(argv)
    server = servers.named(launch.name) if preset == "auto" else servers.KNOWN.get(preset)
    if server is None:
        return Fit(
            name="none",
            argv=argv,
            is_told=launch.is_told,
            warnings=_of_launcher(launch, situation) if preset == "auto" else (),
        )
    call = Call(server, launch)
    added = _PRESETS.get(server.name, _plain)(call, situation)
    return Fit(
        name=server.name,
        argv=launch.argv(added.extra, instead=added.instead),
        env=added.env,
        stop_signal=server.stop_signal,
        clean_exits=server.clean_exits,
        broken_exits=server.broken_exits,
        warnings=(
            *_of_launcher(launch, situation),
            *(f"{server.name} {text}" for applies, text in added.warnings if applies),
        ),
        is_told=launch.is_told,
    )


def stop_signal(service: ServiceConfig) -> int:
    """Return what asks a worker of the service to finish."""
    if service.stop_signal is not None:
        return service.stop_signal
    call = recognise(service.command) if service.preset == "auto" else None
    server = call.server if call else servers.KNOWN.get(service.preset)
    return server.stop_signal if server else servers.TERM


def _of_launcher(launch: Launch, situation: Situation) -> tuple[str, ...]:
    if not situation.listen or launch.way not in _LOSES:
        return ()
    return (f"{launch.by}: {_LOSES[launch.way]}",)


# --- The servers -------------------------------------------------------------------------------


def _uvicorn(call: Call, situation: Situation) -> _Addition:
    extra = _fd(call, situation)
    if not _set(call, situation, "--workers"):
        extra += ["--workers", "1"]  # or WEB_CONCURRENCY would multiply our workers
    if not _set(call, situation, "--timeout-graceful-shutdown"):
        # Without it uvicorn waits for ever for a client that never ends (Kludex/uvicorn#2943).
        extra += ["--timeout-graceful-shutdown", _below(situation.drain_timeout)]
    if not (
        _set(call, situation, "--forwarded-allow-ips") or "FORWARDED_ALLOW_IPS" in situation.env
    ) and any(address.startswith("[::]:") for address in situation.addresses):
        extra += ["--forwarded-allow-ips", LOCAL]  # it compares letters, and trusts 127.0.0.1 only
    fd = call.value("--fd") or ""
    fds = range(FIRST_FD, FIRST_FD + len(situation.listen))
    return _Addition(
        extra=tuple(extra),
        warnings=(
            (call.has("--reload"), RELOAD),
            (
                _several(call.value("--workers")),
                "--workers above 1: its own manager has no limit for a worker that does not end; "
                "use the key workers instead",
            ),
            (
                bool(fds) and fd.isdecimal() and int(fd) not in fds,
                f"--fd {fd}: no listener has that descriptor, so it does not start; write "
                f"{{{next(iter(situation.listen), '')}}}",
            ),
        ),
    )


def _gunicorn(call: Call, situation: Situation) -> _Addition:
    extra: list[str] = []
    named = bool(placeholder.names(call.args))
    if not call.launch.is_told and not named:
        extra += _each(situation, call.server)
        named = bool(extra)
    if not _in_gunicorn_config(call, situation, "--graceful-timeout"):
        extra += ["--graceful-timeout", _below(situation.drain_timeout)]
    if not call.has("--control-socket", "--no-control-socket") and (
        _version(call, situation) >= (25, 1)
    ):
        # One path for all of them: the second takes it over, the first deletes it at its end.
        extra.append("--no-control-socket")
    return _Addition(
        extra=tuple(extra),
        # The default of its --workers, so that -w or a config file can still say otherwise.
        env=(("WEB_CONCURRENCY", "1"),),
        warnings=(
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
    given = last_value((*words, *call.args), ("-c", "--config", option)) is not None
    return given or Path(situation.cwd, "gunicorn.conf.py").exists()


def _uwsgi(call: Call, situation: Situation) -> _Addition:
    extra: list[str] = []
    if situation.listen and not placeholder.names(call.args):
        if not call.launch.is_told:
            extra += _each(situation, call.server)
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
    return _Addition(
        extra=tuple(extra),
        warnings=(
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


def _hypercorn(call: Call, situation: Situation) -> _Addition:
    extra: list[str] = []
    if not placeholder.names(call.args):
        extra += _each(situation, call.server)
    if not call.has("-w", "--workers"):
        extra += ["--workers", "0"]  # no process of its own above the one that serves
    if not call.has("--graceful-timeout"):
        extra += ["--graceful-timeout", _below(situation.drain_timeout)]
    return _Addition(
        extra=tuple(extra),
        warnings=(
            (call.has("--reload"), RELOAD),
            (
                _several(call.value("-w", "--workers")),
                "--workers above 1: the first that ends makes it kill the others, with their "
                "requests; use the key workers instead",
            ),
        ),
    )


def _granian(call: Call, situation: Situation) -> _Addition:
    extra: list[str] = []
    instead: tuple[str, ...] = ()
    if situation.listen:
        instead = (LAUNCHER,) if call.launch.is_module else (_python_of(call, situation), LAUNCHER)
        if not instead[0]:
            raise ConfigError(
                f"service.{situation.service}.command: cannot tell which Python runs "
                f"{call.launch.program}, which is needed to give it a listener",
                do='name it: command = ["/path/to/python", "-m", "granian", ...]',
            )
        if not call.has("--fd"):
            extra += ["--fd", _only_one(situation, "granian")]
    if not _set(call, situation, "--workers"):
        extra += ["--workers", "1"]
    if not _set(call, situation, "--workers-kill-timeout"):
        extra += ["--workers-kill-timeout", _below(situation.drain_timeout)]
    return _Addition(
        extra=tuple(extra), instead=instead, warnings=((call.has("--reload"), RELOAD),)
    )


def _daphne(call: Call, situation: Situation) -> _Addition:
    return _Addition(
        extra=tuple(_fd(call, situation)),
        warnings=(
            (
                bool(situation.listen),
                "drains nothing: told to stop, it closes every connection with its request; serve "
                "the application by `app`, or by another server",
            ),
        ),
    )


def _puma(call: Call, situation: Situation) -> _Addition:
    # Without it Puma closes each socket whose address is not among its own.
    wanted = situation.listen and not call.has("--bind-to-activated-sockets")
    return _Addition(extra=("--bind-to-activated-sockets", "only") if wanted else ())


def _nginx(_: Call, situation: Situation) -> _Addition:
    """Name the descriptors as nginx does for its own upgrades (ngx_add_inherited_sockets)."""
    fds = "".join(f"{fd};" for fd, _ in enumerate(situation.listen, FIRST_FD))
    return _Addition(env=(("NGINX", fds),) if fds else ())


def _php_fpm(_: Call, situation: Situation) -> _Addition:
    """Name descriptors and addresses as php-fpm does for its own upgrades (fpm_sockets.c)."""
    pairs = enumerate(situation.addresses, FIRST_FD)
    sockets = ",".join(f"{address}={fd}" for fd, address in pairs)
    return _Addition(env=(("FPM_SOCKETS", sockets),) if sockets else ())


def _plain(call: Call, situation: Situation) -> _Addition:
    """Add nothing: it takes LISTEN_FDS, or no socket at all."""
    deaf = call.server.work is Work.HTTP and not call.server.takes_socket
    return _Addition(
        warnings=(
            (
                bool(situation.listen) and deaf,
                "cannot be given a socket by its command line: it opens a port of its own, and "
                "its workers get no connection; start it by a program that hands it descriptor 3",
            ),
        )
    )


# --- What they share ---------------------------------------------------------------------------


def _fd(call: Call, situation: Situation) -> list[str]:
    """Return the words that name the one listener, for a server that is told of it so."""
    if not situation.listen or placeholder.names(call.args):
        return []
    return ["--fd", _only_one(situation, call.name)]


def _only_one(situation: Situation, server: str) -> str:
    """Return the placeholder of the one listener, for a server that can serve no more."""
    if len(situation.listen) > 1:
        raise ConfigError(
            f"service.{situation.service}.listen = {list(situation.listen)} cannot be used: "
            f"{server} serves one listener",
            do="leave one in listen, and give the others to services of their own",
        )
    return f"{{{situation.listen[0]}}}"


def _each(situation: Situation, server: Server) -> list[str]:
    """Return the words that name every listener."""
    return [
        text.replace("{}", f"{{{name}}}") for name in situation.listen for text in server.names_fd
    ]


def _below(drain_timeout: float) -> str:
    """Return whole seconds below the manager's own limit, so that the server ends by itself."""
    return str(max(1, int(drain_timeout - 1)))


def _set(call: Call, situation: Situation, option: str) -> bool:
    """Tell whether `option` is given, or set by the variable that click reads for it."""
    variable = f"{call.name}_{option[2:]}".upper().replace("-", "_")
    return call.has(option) or (variable in situation.env and call.launch.keeps_env)


def _several(workers: str | None) -> bool:
    return workers is not None and workers.isdecimal() and int(workers) > 1


def _python_of(call: Call, situation: Situation) -> str:
    """Return the interpreter that runs the server, as a word for argv; "" if it is not clear."""
    launch = call.launch
    if launch.python:
        return launch.python
    if launch.chosen:  # the launcher finds the one of the project; but uvx has no project
        return "" if {"uvx", "tool", "npx"}.intersection(launch.before) else "python"
    return shebang(situation.find(launch.program))


def shebang(script: str | None) -> str:
    """Return the Python that a script names in its first lines; "" if it names none."""
    try:
        lines = first_bytes(script or "", 4096).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    # pip and uv write the second form when the path is too long for the kernel.
    for line, form in zip(
        lines, (r"#!\s*(\S+)", r"'''exec' \"?([^\"]+?)\"? \"\$0\""), strict=False
    ):
        match = re.match(form, line)
        if match and PYTHON.fullmatch(Path(match[1]).name):
            return match[1]
    return ""


def _version(call: Call, situation: Situation) -> tuple[int, ...]:
    """Return the oldest version of the server beside its interpreter, () if none is found.

    Read from the names of the installed metadata: to ask the program itself takes a whole start.
    """
    if call.launch.elsewhere:
        return ()
    if call.launch.chosen and not call.launch.python:
        home = Path(situation.cwd, ".venv")
    else:
        python = situation.find(_python_of(call, situation) or "python")
        home = Path(python or "").parent.parent
    found = [
        tuple(int(number) for number in re.findall(r"\d+", entry.name.split("-")[1])[:3])
        for folder in ("site-packages", "dist-packages")
        for entry in home.glob(f"lib/python3*/{folder}/{call.name}-*-info")
    ]
    return min(found, default=())


_PRESETS: dict[str, Callable[[Call, Situation], _Addition]] = {
    "uvicorn": _uvicorn,
    "gunicorn": _gunicorn,
    "uwsgi": _uwsgi,
    "hypercorn": _hypercorn,
    "granian": _granian,
    "daphne": _daphne,
    "puma": _puma,
    "nginx": _nginx,
    "php-fpm": _php_fpm,
}

"""The presets: which arguments, variables and warnings are added to the command of each server.

Each rule was seen to hold with the server itself, and tests/launch/test_presets.py tries it again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from sockmgr.config import placeholder, servers
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.servers import Server, Work
from sockmgr.errors import ConfigError
from sockmgr.launch.call import Call, last_value
from sockmgr.launch.interpreter import python_of, version
from sockmgr.launch.situation import Addition, Situation

LOCAL = "127.0.0.1,::1,::ffff:127.0.0.1"
LAUNCHER, UVICORN_LAUNCHER = (
    str(Path(__file__).parents[1] / "programs" / f"launch_{name}.py")
    for name in ("granian", "uvicorn")
)


def _uvicorn(call: Call, situation: Situation) -> Addition:
    extra = _fd(call, situation)
    if not _set(call, situation, "--workers"):
        extra += ["--workers", "1"]  # WEB_CONCURRENCY would start more in each worker of ours
    if not _set(call, situation, "--timeout-graceful-shutdown"):
        # Without it uvicorn waits forever for a client that never ends (Kludex/uvicorn#2943).
        extra += ["--timeout-graceful-shutdown", _below(situation.drain_timeout)]
    if not (
        _set(call, situation, "--forwarded-allow-ips") or "FORWARDED_ALLOW_IPS" in situation.env
    ) and any(address.startswith("[::]:") for address in situation.addresses):
        # By default it trusts the text 127.0.0.1, and IPv4 clients of [::] are ::ffff:127.0.0.1.
        extra += ["--forwarded-allow-ips", LOCAL]
    # Clients of a unix socket, whose address begins with a slash or is a name, come until the end.
    unix = any(address[:1] in ("", "/") for address in situation.addresses)
    overlaps = unix or (situation.leaves_others and bool(situation.listen))
    fd = call.value("--fd") or ""
    fds = range(FIRST_FD, FIRST_FD + len(situation.listen))
    return Addition(
        extra=tuple(extra),
        instead=_launched(call, situation, UVICORN_LAUNCHER) if overlaps else (),
        warnings=(
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


def _gunicorn(call: Call, situation: Situation) -> Addition:
    extra: list[str] = []
    named = bool(placeholder.names(call.args))
    if not call.launch.passes_listen_fds and not named:
        extra += _each(situation, call.server)
        named = bool(extra)
    if not _in_gunicorn_config(call, situation, "--graceful-timeout"):
        extra += ["--graceful-timeout", _below(situation.drain_timeout)]
    if not call.has("--control-socket", "--no-control-socket") and (
        version(call, situation) >= (25, 1)
    ):
        # All of them have the same path: a new one takes it over, and the old one deletes it.
        extra.append("--no-control-socket")
    return Addition(
        extra=tuple(extra),
        # The default of --workers, which -w and a config file override.
        env=(("WEB_CONCURRENCY", "1"),),
        warnings=(
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
    """Return whether `option` is given, or may be in a config file, over which ours would win."""
    words = tuple(situation.env.get("GUNICORN_CMD_ARGS", "").split())
    given = last_value((*words, *call.args), ("-c", "--config", option)) is not None
    return given or Path(situation.cwd, "gunicorn.conf.py").exists()


def _uwsgi(call: Call, situation: Situation) -> Addition:
    extra: list[str] = []
    if situation.listen and not placeholder.names(call.args):
        if not call.launch.passes_listen_fds:
            extra += _each(situation, call.server)
        elif not call.has("--protocol", "--socket-protocol"):
            extra += ["--protocol", "http"]
    if not call.has("--master", "-M"):
        extra.append("--master")
    if not any("gracefully_kill_them_all" in text for text in call.args):
        # On TERM it reloads brutally, and with --die-on-term ends brutally (unbit/uwsgi#2240). The
        # hook overrides both.
        extra += ["--hook-master-start", f"unix_signal:{signal.SIGTERM:d} gracefully_kill_them_all"]
    if not call.has("--need-app"):
        extra.append("--need-app")  # without it broken code starts, and answers 500
    return Addition(
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


def _hypercorn(call: Call, situation: Situation) -> Addition:
    extra: list[str] = []
    if not placeholder.names(call.args):
        extra += _each(situation, call.server)
    if not call.has("-w", "--workers"):
        extra += ["--workers", "0"]  # serve in the first process, without a child
    if not call.has("--graceful-timeout"):
        extra += ["--graceful-timeout", _below(situation.drain_timeout)]
    return Addition(
        extra=tuple(extra),
        warnings=(
            (
                _several(call.value("-w", "--workers")),
                "--workers above 1: the first that ends makes it kill the others, with their "
                "requests; use the key workers instead",
            ),
        ),
    )


def _granian(call: Call, situation: Situation) -> Addition:
    extra: list[str] = []
    instead: tuple[str, ...] = ()
    if situation.listen:
        instead = _launched(call, situation, LAUNCHER)
        if not instead:
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
    return Addition(extra=tuple(extra), instead=instead)


def _puma(call: Call, situation: Situation) -> Addition:
    # Without it Puma closes each socket whose address is not among its own.
    wanted = situation.listen and not call.has("--bind-to-activated-sockets")
    return Addition(extra=("--bind-to-activated-sockets", "only") if wanted else ())


def _nginx(_: Call, situation: Situation) -> Addition:
    """Pass the descriptors as nginx does in its own upgrades: ngx_add_inherited_sockets()."""
    fds = "".join(f"{fd};" for fd, _ in enumerate(situation.listen, FIRST_FD))
    return Addition(env=(("NGINX", fds),) if fds else ())


def _php_fpm(_: Call, situation: Situation) -> Addition:
    """Pass descriptors and addresses as php-fpm does in its own upgrades: fpm_sockets.c."""
    pairs = enumerate(situation.addresses, FIRST_FD)
    sockets = ",".join(f"{address}={fd}" for fd, address in pairs)
    return Addition(env=(("FPM_SOCKETS", sockets),) if sockets else ())


def nothing(call: Call, situation: Situation) -> Addition:
    """Add nothing to a server that takes LISTEN_FDS; warn of one that takes no socket at all."""
    deaf = call.server.work is Work.HTTP and not call.server.takes_socket
    deaf = deaf and servers.named(call.launch.name) is call.server  # not a program that uses it
    return Addition(
        warnings=(
            (
                bool(situation.listen) and deaf,
                "cannot be given a socket by its command line: it opens a port of its own, and "
                "its workers get no connection; start it by a program that hands it descriptor 3",
            ),
        )
    )


# --- What they share ---------------------------------------------------------------------------


def _launched(call: Call, situation: Situation, launcher: str) -> tuple[str, ...]:
    """Return the words by which a launcher runs in the server's Python; () if that is not known."""
    if call.launch.is_module:
        return (launcher,)
    python = python_of(call, situation)
    return (python, launcher) if python else ()


def _fd(call: Call, situation: Situation) -> list[str]:
    """Return `--fd` and the placeholder of the one listener; [] if the command names it."""
    if not situation.listen or placeholder.names(call.args):
        return []
    return ["--fd", _only_one(situation, call.name)]


def _only_one(situation: Situation, server: str) -> str:
    """Return the placeholder of the listener of a server that can serve only one."""
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
    """Return a limit in whole seconds below the manager's, so that the server ends by itself."""
    return str(max(1, int(drain_timeout - 1)))


def _set(call: Call, situation: Situation, option: str) -> bool:
    """Return whether `option` is given, or set by the variable that click reads for it."""
    variable = f"{call.name}_{option[2:]}".upper().replace("-", "_")
    return call.has(option) or (variable in situation.env and call.launch.keeps_env)


def _several(workers: str | None) -> bool:
    return workers is not None and workers.isdecimal() and int(workers) > 1


PRESETS: dict[str, Callable[[Call, Situation], Addition]] = {
    "uvicorn": _uvicorn,
    "gunicorn": _gunicorn,
    "uwsgi": _uwsgi,
    "hypercorn": _hypercorn,
    "granian": _granian,
    "daphne": lambda call, situation: Addition(extra=tuple(_fd(call, situation))),
    "puma": _puma,
    "nginx": _nginx,
    "php-fpm": _php_fpm,
}

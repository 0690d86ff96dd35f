"""The config: can it be used, would its commands start, do they lose requests by what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Delay
from sockmgr.doctor import unix_sockets
from sockmgr.doctor.finding import Check, Finding
from sockmgr.errors import SockmgrError
from sockmgr.launch.call import Call, last_value, recognise
from sockmgr.launch.resolve import resolve, warnings
from sockmgr.worker import deadline


def unusable(error: SockmgrError, file: str) -> Finding:
    """Return the finding for a config that cannot be read or understood."""
    return Finding(
        check=Check.CONFIG,
        subject=file,
        what=error.what,
        why=error.means or "no manager starts with it, and a reload is refused",
        fix=error.do or "correct it",
    )


def examine(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at each service as a manager would that is started here, with `environ`."""
    for service in config.services:
        try:
            spec = resolve(service, config.listens(), environ)
        except SockmgrError as error:
            yield Finding(
                check=Check.COMMAND,
                subject=_key(service),
                what=error.what,
                why=error.means or "its workers cannot start, so a start fails, and a reload too",
                fix=error.do or "correct it",
            )
            continue
        yield from _flags(service, environ)
        yield from _graceful_timeout(service, dict(spec.env))
        yield from _short_drain(service)
        yield from _ready_guess(service)
    yield from unix_sockets.unbelieved(config, environ)


def _flags(service: ServiceConfig, environ: Mapping[str, str]) -> Iterator[Finding]:
    for text in warnings(service, environ):
        # As in `service.web.command: uvicorn --reload: why it matters; what to do`.
        key, what, rest = text.split(": ", 2)
        why, _, fix = rest.partition("; ")
        yield Finding(
            check=Check.FLAGS, subject=_key(service), what=f"{key}: {what}", why=why, fix=fix
        )


def _graceful_timeout(service: ServiceConfig, env: Mapping[str, str]) -> Iterator[Finding]:
    call = recognise(service.command)
    if call is None:
        return
    for option, text in _own_limits(call, env):
        own = _seconds(text)
        if own is not None and own > service.drain_timeout:
            ours = f"drain_timeout = {service.drain_timeout:g} s"
            yield Finding(
                check=Check.GRACEFUL_TIMEOUT,
                subject=_key(service),
                what=f"service.{service.name}: {call.name} may take {own:g} s to end "
                f"({option}), and {ours}",
                why=f"it is killed after {service.drain_timeout:g} s, with requests that it would "
                "have finished",
                fix=f"set drain_timeout above {own:g} s, or lower {option}",
            )


def _own_limits(call: Call, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    # What a config file of its own says, the command does not show.
    for option in call.server.patience:
        variable = f"{call.name}_{option[2:]}".upper().replace("-", "_")  # as click reads it
        if (given := call.value(option)) is not None:
            yield option, given
        elif call.name == "gunicorn" and (words := env.get("GUNICORN_CMD_ARGS", "").split()):
            given = last_value(tuple(words), (option,))
            yield f"GUNICORN_CMD_ARGS {option}", given or ""
        elif variable in env:
            yield variable, env[variable]


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # the server will say so
        return None


def _short_drain(service: ServiceConfig) -> Iterator[Finding]:
    ours, idle = service.drain_timeout, service.http.keep_alive
    left = ours - deadline.last(ours)
    if service.app and left < idle:
        yield Finding(
            check=Check.SHORT_DRAIN,
            subject=_key(service),
            what=f"service.{service.name}: drain_timeout = {ours:g} s leaves {left:g} s to idle "
            f"connections, and keep_alive = {idle:g} s",
            why="in a reload they are closed before their time, and clients that use them just "
            "then lose requests",
            fix=f"set drain_timeout to {deadline.enough(idle):.3g} s or more",
        )


def _ready_guess(service: ServiceConfig) -> Iterator[Finding]:
    if isinstance(service.ready, Delay) and service.listen:
        yield Finding(
            check=Check.READY_GUESS,
            subject=_key(service),
            what=f"service.{service.name}.ready is a delay of {service.ready.seconds:g} s",
            why="that is a guess: new code that hangs counts as ready, and is given the "
            "connections of the old",
            fix='leave `ready` out if the program accepts on its socket; or "notify", or a command',
        )


def _key(service: ServiceConfig) -> str:
    return f"service.{service.name}"

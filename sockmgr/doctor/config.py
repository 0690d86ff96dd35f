"""Look at a config: can it be used, would its commands start, do their flags lose requests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Delay
from sockmgr.doctor import processes, unix_sockets
from sockmgr.doctor.finding import Check, Finding
from sockmgr.errors import SockmgrError
from sockmgr.launch import virtual_env
from sockmgr.launch.call import Call, last_value, recognise
from sockmgr.launch.resolve import prepare
from sockmgr.worker import deadline


def unusable(error: SockmgrError, file: str) -> Finding:
    return Check.CONFIG.found(
        subject=file,
        what=error.what,
        why=error.means or "no manager starts with it, and a reload is refused",
        fix=error.do or "correct it",
    )


def examine(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at each service as a manager would that starts here, in the environment `environ`."""
    for service in config.services:
        try:
            with config.placing("service", service.name):
                prepared = prepare(service, config.listens(), environ)
                spec = prepared.spec()
        except SockmgrError as error:
            yield Check.COMMAND.found(
                subject=_key(service),
                what=error.what,
                why=error.means or "its workers cannot start, so a start fails, and a reload too",
                fix=error.do or "correct it",
            )
            continue
        yield from _flags(service, prepared.warnings())
        yield from _astray(service, prepared.env, prepared.cwd)
        yield from _graceful_timeout(service, dict(spec.env), *prepared.own_config)
        yield from _short_drain(service)
        yield from _ready_guess(service)
    yield from _ready_file(config)
    yield from unix_sockets.unbelieved(config, environ)


def of_manager(config: Config, pid: int) -> Iterator[Finding]:
    """Look where the environment of a manager leads the workers that it starts next."""
    environ = processes.environ(pid)
    for service in config.services:
        with suppress(SockmgrError):  # examine() has a finding for that
            prepared = prepare(service, config.listens(), environ)
            prepared.spec()
            yield from _astray(service, prepared.env, prepared.cwd)


def _astray(service: ServiceConfig, env: Mapping[str, str], cwd: str) -> Iterator[Finding]:
    for what in virtual_env.astray(service, env, cwd):
        yield Check.OTHER_RELEASE.found(
            subject=_key(service),
            what=f"{_key(service)}: {what}",
            why="what is not in the release is taken from there, or from wherever it is found",
            fix="give each release a .venv of its own or name it by the key venv, and start the "
            "manager with an environment of none of them",
        )


def _ready_file(config: Config) -> Iterator[Finding]:
    place = config.ready_file.rpartition("/")[0] or "/"
    if config.ready_file and not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        yield Check.READY_FILE.found(
            subject="ready_file",
            what=f"nothing can be written to {place}, where ready_file is to be",
            why="whoever looks at the file never sends this manager any traffic",
            fix="make the directory, or name one that the manager's user may write to",
        )


def _flags(service: ServiceConfig, warnings: Iterable[str]) -> Iterator[Finding]:
    for text in warnings:
        # As in `service.web.command: uvicorn --reload: why it matters; what to do`.
        key, what, rest = text.split(": ", 2)
        why, _, fix = rest.partition("; ")
        yield Check.FLAGS.found(subject=_key(service), what=f"{key}: {what}", why=why, fix=fix)


def _graceful_timeout(
    service: ServiceConfig, env: Mapping[str, str], file: str, given: Mapping[str, str]
) -> Iterator[Finding]:
    call = recognise(service.command)
    if call is None:
        return
    names = {option[2:] for option in call.server.patience}
    names |= {name.replace("-", "_") for name in names}
    of_file = ((f"{name} in {file}", given[name]) for name in sorted(names) if name in given)
    for option, text in (*_own_limits(call, env), *of_file):
        own = _seconds(text)
        if own is not None and own > service.drain_timeout:
            ours = f"drain_timeout = {service.drain_timeout:g} s"
            yield Check.GRACEFUL_TIMEOUT.found(
                subject=_key(service),
                what=f"service.{service.name}: {call.name} may take {own:g} s to end "
                f"({option}), and {ours}",
                why=f"it is killed after {service.drain_timeout:g} s, with requests that it would "
                "have finished",
                fix=f"set drain_timeout above {own:g} s, or lower {option}",
            )


def _own_limits(call: Call, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
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
    except ValueError:  # the server will complain
        return None


def _short_drain(service: ServiceConfig) -> Iterator[Finding]:
    ours, idle = service.drain_timeout, service.http.keep_alive
    left = ours - deadline.last(ours)
    moves = service.http.migrate and not service.http.certfile
    if service.app and left < idle and not moves:
        yield Check.SHORT_DRAIN.found(
            subject=_key(service),
            what=f"service.{service.name}: drain_timeout = {ours:g} s leaves {left:g} s to idle "
            f"connections, and keep_alive = {idle:g} s",
            why="in a reload they are closed before their time, and clients that use them just "
            "then lose requests",
            fix=f"set drain_timeout to {deadline.enough(idle):.3g} s or more",
        )


def _ready_guess(service: ServiceConfig) -> Iterator[Finding]:
    if isinstance(service.ready, Delay) and service.listen:
        yield Check.READY_GUESS.found(
            subject=_key(service),
            what=f"service.{service.name}.ready is a delay of {service.ready.seconds:g} s",
            why="that is a guess: new code that hangs counts as ready, and is given the "
            "connections of the old",
            fix='leave `ready` out if the program accepts on its socket; or "notify", or a command',
        )


def _key(service: ServiceConfig) -> str:
    return f"service.{service.name}"

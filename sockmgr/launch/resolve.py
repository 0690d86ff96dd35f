"""From what the config says of a service to what a worker is: a Spec in which nothing can change.

Looks at directories, programs, accounts and limits, and complains before anything is started.
Starts nothing and changes nothing.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from sockmgr.config import placeholder
from sockmgr.config.announcement import takes_listen_fds
from sockmgr.config.config import ServiceConfig
from sockmgr.config.spec import Accept, Exec, Listen, Rollout, Spec
from sockmgr.errors import ConfigError, SpawnError
from sockmgr.kernel import regular
from sockmgr.kernel.accounts import account, group_number, user_name
from sockmgr.launch import app, launchers, own_config, presets
from sockmgr.launch.executable import executable, find
from sockmgr.launch.situation import Situation

# Python keeps what is printed into a pipe until 8 KiB are there. They were lost with a worker that
# hangs or is killed, and are what its verdict is to tell. A print() takes 8 us by it, not 1.
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
OWN_CONFIG_MAX = 1 << 20  # bytes of a server's own config file that are looked at
# Meant by systemd, or by another starter of ours, for the manager itself: systemd.exec(5),
# sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
_OF_THE_MANAGER = frozenset({
    "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET",
    "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE", "JOURNAL_STREAM", "MAINPID", "MAINPIDFDID",
    "MANAGERPID", "MANAGERPIDFDID", "SYSTEMD_EXEC_PID", "SERVICE_RESULT", "EXIT_CODE",
    "EXIT_STATUS", "EINHORN_FD_COUNT", "EINHORN_MASTER_PID", "EINHORN_SOCK_FD",
    "EINHORN_SOCK_PATH", "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION",
})  # fmt: skip
_ALSO = re.compile(r"SOCKMGR_\w+|EINHORN_FD_\d+")


def resolve(
    service: ServiceConfig, listens: Mapping[str, Listen], environ: Mapping[str, str]
) -> Spec:
    """Return what the workers of `service` are, as things stand now.

    `listens` are the config's listeners by name, `environ` is what the manager was started with.
    """
    cwd = _directory(service)
    _check_accounts(service)
    fit, env = _fit(service, cwd, environ, listens)
    _check_accepts(service, fit)
    file = executable(_what_starts(service), fit.argv[0], env, cwd)
    ready = service.ready
    if isinstance(ready, Exec):
        shown = f"service.{service.name}.ready.exec = {shlex.join(ready.argv)}"
        ready = replace(ready, executable=executable(shown, ready.argv[0], env, cwd))
    argv = (file if "/" in fit.argv[0] else fit.argv[0], *fit.argv[1:])
    stop_signal = fit.stop_signal if service.stop_signal is None else service.stop_signal
    return Spec(
        service=service.name,
        argv=argv,
        executable=file,
        cwd=cwd,
        env=tuple(sorted(env.items())),
        listen=tuple(listens[name] for name in service.listen),
        workers=service.workers,
        umask=service.umask,
        user=service.user,
        group=service.group,
        limits=_limits(service),
        set_listen_pid=fit.is_told and _reads_listen_fds(service, argv),
        preload=service.preload,
        ready=ready,
        ready_timeout=service.ready_timeout,
        stop_signal=stop_signal,
        drain_timeout=service.drain_timeout,
        max_age=service.max_age,
        hang_timeout=_hang_timeout(service),
        # What most programs do that are told to stop; 128 + n is a shell's or a JVM's way to say
        # that a signal ended it.
        clean_exits=fit.clean_exits | {-stop_signal, 128 + stop_signal},
        broken_exits=fit.broken_exits,
        rollout=_rollout(service),
        accept=service.accept,
        policy=service.policy,
        max_connections=service.max_connections,
    )


def _reads_listen_fds(service: ServiceConfig, argv: tuple[str, ...]) -> bool:
    """Tell whether its workers find their sockets by LISTEN_FDS, which LISTEN_PID goes with."""
    accepts = service.accept is not Accept.DISPATCH
    return service.listen_pid and accepts and takes_listen_fds(argv, service.listen)


def _rollout(service: ServiceConfig) -> Rollout:
    # Boots sleep, too, on disks and databases; at low priority two a core cost live traffic no
    # more than one does, and the rollout takes less time.
    at_once = service.rollout.start_concurrency or 2 * len(os.sched_getaffinity(0))
    return replace(service.rollout, start_concurrency=at_once)


def _check_accepts(service: ServiceConfig, fit: presets.Fit) -> None:
    if service.accept is Accept.DISPATCH and placeholder.names(fit.argv):
        raise ConfigError(
            f"service.{service.name}.accept = dispatch: {service.command[0]} takes no connections "
            "that somebody else accepted",
            do='let it accept by itself, with "shared" or "per-worker"; see dispatch-protocol.md',
        )


def _what_starts(service: ServiceConfig) -> str:
    """Name the key that says which program is started, and its value."""
    if service.python:
        return f"service.{service.name}.python = {service.python}"
    what = f"app = {service.app}" if service.app else f"command = {shlex.join(service.command)}"
    return f"service.{service.name}.{what}"


def warnings(service: ServiceConfig, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what in the command of `service` loses requests, a sentence each."""
    cwd = _directory(service)
    fit, _ = _fit(service, cwd, environ)
    texts = (*fit.warnings, *_own_config(service, fit.name, cwd))
    return tuple(f"service.{service.name}.command: {text}" for text in texts)


def _own_config(service: ServiceConfig, server: str, cwd: str) -> Iterator[str]:
    """Yield what the server's own flags and config file say that is the manager's to say."""
    args = launchers.read(service.command).args
    yield from (f"{server} {flag}: {why}" for flag, why in own_config.flags(server, args))
    name = own_config.file_name(server, args)
    try:
        data = regular.read(Path(cwd, name), OWN_CONFIG_MAX) if name else b""
    except OSError:  # none by the default name; one that is named, the server will miss itself
        return
    for setting, why in own_config.findings(server, data.decode(errors="replace")):
        yield f"{server} {setting} in {name}: {why}"


def _hang_timeout(service: ServiceConfig) -> float | None:
    if service.hang_timeout is None:
        return app.HANG_TIMEOUT if service.app else None
    return service.hang_timeout or None


# --- The service -------------------------------------------------------------------------------


def _directory(service: ServiceConfig) -> str:
    given = service.cwd or "."
    shown = f"service.{service.name}.cwd = {given}"
    try:
        path = os.path.realpath(given)  # now, so that a link like `current` is looked at once only
    except FileNotFoundError:  # getcwd(3)
        raise ConfigError(
            f"{shown}: the directory that the manager was started in has been deleted",
            do="give an absolute cwd, or start the manager anew in a directory that stays",
        ) from None
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"{shown}: there is no {path}", do="create it, or correct cwd") from None
    except OSError as error:
        raise ConfigError(f"{shown}: {error.strerror}", do="correct cwd") from None
    if not stat.S_ISDIR(mode):
        raise ConfigError(f"{shown}: {path} is not a directory", do="correct cwd")
    if not os.access(path, os.X_OK, effective_ids=True):
        raise ConfigError(f"{shown}: the manager may not enter {path}", do="see its permissions")
    return path


def _fit(
    service: ServiceConfig,
    cwd: str,
    environ: Mapping[str, str],
    listens: Mapping[str, Listen] | None = None,
) -> tuple[presets.Fit, dict[str, str]]:
    """Return the command as its preset wants it, and the environment of the workers."""
    inherited = _UNBUFFERED | _inherited(environ) if service.inherit_env else {}
    given = dict(service.env)
    if "PWD" in inherited:
        inherited["PWD"] = cwd
    if service.user:
        inherited |= _account(service.user)
    env = inherited | given
    if service.app:
        return app.fit(service, env, lambda program: find(program, env, cwd)), env
    used = [listens[name] for name in service.listen] if listens else []
    situation = Situation(
        service=service.name,
        listen=service.listen,
        env=env,
        cwd=cwd,
        drain_timeout=service.drain_timeout,
        find=lambda program: find(program, env, cwd),
        addresses=tuple(str(listen.address).partition("://")[2] for listen in used),
    )
    fit = presets.fit(service.command, situation, preset=service.preset)
    return fit, inherited | dict(fit.env) | given


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name not in _OF_THE_MANAGER and not _ALSO.fullmatch(name)
    }


def _account(user: str) -> dict[str, str]:
    """Return what systemd sets for User= (systemd.exec(5)): the manager's own would mislead."""
    entry = account(user)
    if entry is None:
        return {}
    names = {"USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return names | {"HOME": entry.pw_dir, "SHELL": entry.pw_shell}


def _check_accounts(service: ServiceConfig) -> None:
    key = f"service.{service.name}"
    entry = account(service.user) if service.user else None
    if service.user and entry is None and not service.user.isdecimal():
        raise ConfigError(f"{key}.user = {service.user}: there is no such user", do="add the user")
    gid = _gid(service)
    uid = entry.pw_uid if entry else int(service.user or os.geteuid())
    if os.geteuid() != 0 and (uid != os.geteuid() or gid not in (None, os.getegid())):
        own = user_name(os.geteuid())
        wanted = " and ".join(
            f"{name} = {value}"
            for name, value in (("user", service.user), ("group", service.group))
            if value
        )
        raise SpawnError(
            f"{key}.{wanted}: only root may change it, and the manager runs as {own}",
            do="remove it, or start the manager as root",
        )


def _gid(service: ServiceConfig) -> int | None:
    if not service.group:
        return None
    gid = group_number(service.group)
    if gid is None:
        raise ConfigError(
            f"service.{service.name}.group = {service.group}: there is no such group",
            do="add the group",
        )
    return gid


def _limits(service: ServiceConfig) -> tuple[tuple[str, int, int], ...]:
    for name, _, hard in service.limits:
        ours = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        raised = ours != -1 and (hard == -1 or hard > ours)
        if raised and os.geteuid() != 0:
            raise SpawnError(
                f"service.{service.name}.limits.{name} = {hard}: the manager's own hard limit is "
                f"{ours}, and only root may raise it",
                do=f"set Limit{name.upper()}={hard} in the manager's unit, or lower it here",
            )
    return tuple((name.upper(), soft, hard) for name, soft, hard in service.limits)

"""Resolve a service of the config to the Spec of its workers, in which nothing can change.

Looks at directories, programs, accounts and limits, so that an error is reported before any worker
is started. Starts nothing and changes nothing.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from sockmgr.config import canary_keys, placeholder
from sockmgr.config.announcement import takes_listen_fds
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.hooks import Hook, Hooks, Moment
from sockmgr.config.spec import Accept, Exec, Listen, Ready, Rollout, Spec, TakenOver
from sockmgr.errors import ConfigError, SpawnError
from sockmgr.kernel import processors, regular
from sockmgr.kernel.accounts import account, user_name
from sockmgr.kernel.capabilities import CAP_SYS_RESOURCE, has_capability
from sockmgr.launch import app, launchers, own_config, presets, virtual_env
from sockmgr.launch.access import group_id
from sockmgr.launch.executable import executable, find
from sockmgr.launch.situation import Situation

# Python buffers what is printed into a pipe, up to 8 KiB. A worker that hangs or is killed would
# lose that, and its verdict quotes its last words. A print() takes 8 us with it, 1 us without.
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
OWN_CONFIG_MAX = 1 << 20  # bytes; a longer config file of a server is not looked at
# Variables by which systemd, or another program that starts us, addresses the manager itself:
# systemd.exec(5), sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
_OF_THE_MANAGER = frozenset({
    "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET",
    "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE", "JOURNAL_STREAM", "MAINPID", "MAINPIDFDID",
    "MANAGERPID", "MANAGERPIDFDID", "SYSTEMD_EXEC_PID", "SERVICE_RESULT", "EXIT_CODE",
    "EXIT_STATUS", "EINHORN_FD_COUNT", "EINHORN_MASTER_PID", "EINHORN_SOCK_FD",
    "EINHORN_SOCK_PATH", "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION",
})  # fmt: skip
_ALSO = re.compile(r"SOCKMGR_\w+|EINHORN_FD_\d+")


def prepare(
    service: ServiceConfig, listens: Mapping[str, Listen], environ: Mapping[str, str]
) -> Prepared:
    """Return `service` with its command fitted by the preset, for the files of this moment.

    `listens` are the config's listeners by name, `environ` is the environment of the manager.
    Raises SockmgrError if the directory, the user or the listeners of the service cannot be used.
    """
    cwd = _directory(service)
    _check_accounts(service)
    venv = virtual_env.home(service, cwd)
    if venv and service.app and not service.python and venv != os.path.realpath(sys.prefix):
        service = replace(service, venv=venv, python=f"{venv}/bin/python")
    fit, env = _fit(service, cwd, environ, listens, venv)
    return Prepared(
        service=service,
        listen=tuple(listens[name] for name in service.listen),
        cwd=cwd,
        env=env,
        fit=fit,
        own_config=_own_config(service, fit, cwd),
    )


def check(config: Config) -> None:
    """Raise ConfigError if this process could not start a worker of each service of the config."""
    for service in config.services:
        with config.placing("service", service.name):
            prepare(service, config.listens(), os.environ).spec()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A service with its real directory, the environment of its workers and its fitted command.

    `own_config` is the name of the server's own config file, "" without one, and its settings.
    """

    service: ServiceConfig
    listen: tuple[Listen, ...]
    cwd: str
    env: Mapping[str, str]
    fit: presets.Fit
    own_config: tuple[str, Mapping[str, str]]

    def warnings(self) -> tuple[str, ...]:
        """Return what in the command, or in the server's own config, loses requests, in words."""
        (name, given), server = self.own_config, self.fit.server
        args = launchers.read(self.service.command).args
        found = own_config.findings(server, given, args)
        own = (f"{server.name} {setting} in {name}: {why}" for setting, why in found)
        texts = (*self.fit.warnings, *own, *presets.losses(self.service, self.listen, self.fit))
        where, told = f"service.{self.service.name}", self.service.stop_signal
        losses = [f"{where}.command: {text}" for text in texts]
        if told in server.abrupt:
            how = f"{signal.Signals(told).name}, {server.name} ends with its requests"
            losses.append(f"{where}.stop_signal: told to stop by {how}; leave it out")
        return tuple(losses)

    def spec(self) -> Spec:
        """Return the spec; raise SockmgrError if a worker could not be started."""
        service, fit, env, cwd = self.service, self.fit, self.env, self.cwd
        _check_accepts(service, fit)
        file = executable(_what_starts(service), fit.argv[0], env, cwd)
        argv = (file if "/" in fit.argv[0] else fit.argv[0], *fit.argv[1:])
        stop_signal = service.stop_signal or fit.server.stop_signal
        spec = Spec(
            **{key: getattr(service, key) for key in TakenOver.__struct_fields__},
            service=service.name,
            argv=argv,
            executable=file,
            cwd=cwd,
            env=tuple(sorted(env.items())),
            slot_env=_slot_env(service),
            listen=self.listen,
            workers=service.workers or processors.available(),
            limits=_limits(service),
            set_listen_pid=fit.passes_listen_fds and _reads_listen_fds(service, argv),
            ready=_ready(service, env, cwd),
            stop_signal=stop_signal,
            hang_timeout=_hang_timeout(service),
            # How most programs end on their stop signal; a shell and a JVM say by 128 + n that a
            # signal ended them.
            clean_exits=fit.server.clean_exits | {-stop_signal, 128 + stop_signal},
            broken_exits=fit.server.broken_exits,
            rollout=_rollout(service, env, cwd),
            hooks=_hooks(service, env, cwd),
            moves=self.fit.moves,
            has_figures=bool(service.app),
            tls=bool(service.http.certfile),
        )
        why, do = canary_keys.obstacle(spec.rollout, spec.workers, spec.accept, spec.listen)
        if why:  # which the config could not tell if the number of workers is "auto"
            raise ConfigError(f"service.{service.name}.rollout.canary {why}", do=do)
        return _with_private(spec, service, fit)


def _with_private(spec: Spec, service: ServiceConfig, fit: presets.Fit) -> Spec:
    """Return the spec, in which it is said if its workers take one more socket to be probed by.

    Raises ConfigError if they need it and take none.
    """
    if not spec.probes or spec.accept is Accept.DISPATCH:
        return spec
    # What comes behind the sockets of a command may be no socket.
    takes = (
        not service.python
        if service.app
        else fit.server.name == "gunicorn" and spec.set_listen_pid and not spec.hang_timeout
    )
    for key, probe in spec.probes.items():
        listen = spec.asked(probe)
        if not listen.address.traits.is_internet and listen.address.traits.is_stream and not takes:
            other = 'add accept = "dispatch"' if service.app else "use app or gunicorn"
            raise ConfigError(
                f"service.{service.name}.{key} cannot ask the new workers alone: all accept from "
                f"the one socket of {listen.name}, and {service.python or fit.argv[0]} is not "
                "known to take another one",
                do=f'{other}, or use {{ exec = ["COMMAND"] }} as `ready`',
            )
    return replace(spec, takes_private=takes)


def _ready(service: ServiceConfig, env: Mapping[str, str], cwd: str) -> Ready:
    """Return what shows that a worker is ready, with the file of a command that tests it."""
    if not isinstance(service.ready, Exec):
        return service.ready
    argv = service.ready.argv
    shown = f"service.{service.name}.ready.exec = {argv[0]}"
    return replace(service.ready, executable=executable(shown, argv[0], env, cwd))


def _hooks(service: ServiceConfig, env: Mapping[str, str], cwd: str) -> Hooks:
    """Return the hooks with their files."""

    def found(key: str, hook: Hook) -> Hook:
        shown = f"service.{service.name}.hooks.{key} = {hook.argv[0]}"
        return replace(hook, executable=executable(shown, hook.argv[0], env, cwd))

    every = {moment: service.hooks.at(moment) for moment in Moment}
    return Hooks(**{key: found(key, hook) for key, hook in every.items() if hook})


def _reads_listen_fds(service: ServiceConfig, argv: tuple[str, ...]) -> bool:
    """Return whether its workers find their sockets by LISTEN_FDS, which needs LISTEN_PID."""
    accepts = service.accept is not Accept.DISPATCH
    return service.listen_pid and accepts and takes_listen_fds(argv, service.listen)


def _rollout(service: ServiceConfig, env: Mapping[str, str], cwd: str) -> Rollout:
    # Twice the number of cores, because a boot also waits for disks and databases: at low priority
    # two boots a core cost the live traffic no more than one, and the rollout is faster.
    at_once = service.rollout.start_concurrency or 2 * processors.available()
    canary = service.rollout.canary
    if canary and canary.check:
        shown = f"service.{service.name}.rollout.canary.check = {canary.check[0]}"
        file = executable(shown, canary.check[0], env, cwd)
        canary = replace(canary, executable=file)
    return replace(service.rollout, start_concurrency=at_once, canary=canary)


def _check_accepts(service: ServiceConfig, fit: presets.Fit) -> None:
    if service.accept is Accept.DISPATCH and placeholder.names(fit.argv):
        raise ConfigError(
            f"service.{service.name}.accept = dispatch: {service.command[0]} takes no connections "
            "that somebody else accepted",
            do='let it accept by itself, with "shared" or "per-worker"; see dispatch-protocol.md',
        )


def _what_starts(service: ServiceConfig) -> str:
    """Return the key of the config that names the program, and that, for errors.

    Without its arguments, in which secrets may be, out of variables.
    """
    if service.python:
        return f"service.{service.name}.python = {service.python}"
    what = f"app = {service.app}" if service.app else f"command = {service.command[0]}"
    return f"service.{service.name}.{what}"


def _own_config(
    service: ServiceConfig, fit: presets.Fit, cwd: str
) -> tuple[str, Mapping[str, str]]:
    if name := own_config.file_name(fit.server.name, launchers.read(service.command).args):
        with suppress(OSError):  # if the command names it, the server itself will complain
            data = regular.read(Path(cwd, name), OWN_CONFIG_MAX)
            return name, own_config.settings(fit.server, data.decode(errors="replace"))
    return "", {}


def _hang_timeout(service: ServiceConfig) -> float | None:
    if service.hang_timeout is None:
        return app.HANG_TIMEOUT if service.app else None
    return service.hang_timeout or None


# --- The service -------------------------------------------------------------------------------


def _directory(service: ServiceConfig) -> str:
    given = service.cwd or "."
    shown = f"service.{service.name}.cwd = {given}"
    try:
        path = os.path.realpath(given)  # now: a link such as `current` may change at any moment
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
    listens: Mapping[str, Listen],
    venv: str,
) -> tuple[presets.Fit, dict[str, str]]:
    """Return the command as its preset wants it, and the environment of the workers."""
    inherited = _inherited(service, environ)
    of_slot = dict(_slot_env(service))
    given = {k: placeholder.in_slot(v, 0) for k, v in service.env if k not in of_slot}
    if "PWD" in inherited:
        inherited["PWD"] = cwd
    if service.user:
        inherited |= _account(service.user)
    inherited = {name: text for name, text in inherited.items() if name not in of_slot}
    env = inherited | given
    if venv:
        env = virtual_env.activated(env, venv)
    if service.app:
        return app.fit(service, env, lambda program: find(program, env, cwd)), env
    situation = Situation(
        service=service.name,
        listen=service.listen,
        env=env,
        cwd=cwd,
        drain_timeout=service.drain_timeout,
        find=lambda program: find(program, env, cwd),
        addresses=tuple(str(listens[name].address).partition("://")[2] for name in service.listen),
        leaves_others=service.accept is Accept.SHARED and bool(presets.limits(service)),
    )
    fit = presets.fit(service.command, situation, preset=service.preset)
    return fit, env | {name: text for name, text in fit.env if name not in given}


def _slot_env(service: ServiceConfig) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in service.env if placeholder.names_slot(pair[1]))


def _inherited(service: ServiceConfig, environ: Mapping[str, str]) -> dict[str, str]:
    # For every program: who is behind a wrapper nobody can tell, and only Python knows it.
    found = dict(_UNBUFFERED if service.unbuffered else {})
    return found | {
        name: value
        for name, value in environ.items()
        if service.inherit_env and name not in _OF_THE_MANAGER and not _ALSO.fullmatch(name)
    }


def _account(user: str) -> dict[str, str]:
    """Return the variables that systemd sets for User= (systemd.exec(5)), not the manager's own."""
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
    gid = group_id(f"{key}.group", service.group)
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


def _limits(service: ServiceConfig) -> tuple[tuple[str, int, int], ...]:
    for name, _, hard in service.limits:
        ours = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        raised = ours != -1 and (hard == -1 or hard > ours)
        if raised and not (os.geteuid() == 0 and has_capability(CAP_SYS_RESOURCE)):
            raise SpawnError(
                f"service.{service.name}.limits.{name} = {hard}: the manager's own hard limit is "
                f"{ours}, and only root with CAP_SYS_RESOURCE may raise it",
                do=f"set Limit{name.upper()}={hard} in the manager's unit, or lower it here",
            )
    return tuple((name.upper(), soft, hard) for name, soft, hard in service.limits)

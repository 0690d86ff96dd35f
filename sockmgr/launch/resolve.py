"""From what the config says of a service to what a worker is: a Spec in which nothing can change.

Looks at directories, programs, accounts and limits, and complains before anything is started.
Starts nothing and changes nothing.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from sockmgr.config import placeholder
from sockmgr.config.config import ServiceConfig
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.spec import Accept, Exec, Listen, Scheme, Spec, report_pace
from sockmgr.errors import ConfigError, SpawnError
from sockmgr.kernel import regular
from sockmgr.launch import app, launchers, own_config, presets
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
    if service.accept is Accept.DISPATCH and placeholder.names(fit.argv):
        raise ConfigError(
            f"service.{service.name}.accept = dispatch: {service.command[0]} takes no connections "
            "that somebody else accepted",
            do='let it accept by itself, with "shared" or "per-worker"; see dispatch-protocol.md',
        )
    what = f"app = {service.app}" if service.app else f"command = {shlex.join(service.command)}"
    shown = f"service.{service.name}.{what}"
    named = f"service.{service.name}.python = {service.python}" if service.python else shown
    executable = _executable(named, fit.argv[0], env, cwd)
    if isinstance(service.ready, Exec):
        shown = f"service.{service.name}.ready.exec = {shlex.join(service.ready.argv)}"
        _executable(shown, service.ready.argv[0], env, cwd)
    argv = (executable if "/" in fit.argv[0] else fit.argv[0], *fit.argv[1:])
    stop_signal = fit.stop_signal if service.stop_signal is None else service.stop_signal
    return Spec(
        service=service.name,
        argv=argv,
        executable=executable,
        cwd=cwd,
        env=tuple(sorted(env.items())),
        listen=tuple(listens[name] for name in service.listen),
        workers=service.workers,
        umask=service.umask,
        user=service.user,
        group=service.group,
        limits=_limits(service),
        set_listen_pid=(
            service.listen_pid
            and fit.is_told
            and service.accept is not Accept.DISPATCH
            and _takes_listen_fds(argv, service.listen)
        ),
        preload=service.preload,
        ready=service.ready,
        ready_timeout=service.ready_timeout,
        stop_signal=stop_signal,
        drain_timeout=service.drain_timeout,
        max_age=service.max_age,
        hang_timeout=_hang_timeout(service),
        # What most programs do that are told to stop; 128 + n is a shell's or a JVM's way to say
        # that a signal ended it.
        clean_exits=fit.clean_exits | {-stop_signal, 128 + stop_signal},
        broken_exits=fit.broken_exits,
        rollout=replace(
            service.rollout,
            # Boots sleep, too, on disks and databases; at low priority two a core cost live
            # traffic no more than one does, and the rollout takes less time.
            start_concurrency=service.rollout.start_concurrency or 2 * len(os.sched_getaffinity(0)),
        ),
        accept=service.accept,
        policy=service.policy,
        max_connections=service.max_connections,
    )


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


# --- For each worker ---------------------------------------------------------------------------


def worker_argv(spec: Spec) -> tuple[str, ...]:
    """Return the command with each `{name}` replaced by the fd that the listener will have."""
    names = (listen.name for listen in spec.listen)
    return placeholder.fill(spec.argv, {name: fd for fd, name in enumerate(names, FIRST_FD)})


def worker_environment(spec: Spec, addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that announce the listeners, but for LISTEN_PID, which spawn adds.

    A command that names a listener gets none: Gunicorn, told twice, dies of EBADF. `addresses` are
    the real ones, by listener's name, as in `tcp://127.0.0.1:8000`.
    """
    names = tuple(listen.name for listen in spec.listen)
    if spec.accept is Accept.DISPATCH:
        return {
            "SOCKMGR_DISPATCH_FD": str(FIRST_FD),
            "SOCKMGR_DISPATCH_NAMES": ":".join(names),
            "SOCKMGR_DISPATCH_PACE": str(report_pace(spec.policy, spec.max_connections)),
        }
    if not _takes_listen_fds(spec.argv, names):
        return {}
    fds = range(FIRST_FD, FIRST_FD + len(names))
    env = {
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
        "EINHORN_FD_COUNT": str(len(names)),
        **{f"EINHORN_FD_{index}": str(fd) for index, fd in enumerate(fds)},
    }
    ports = [
        f"{addresses[listen.name].partition('://')[2]}={fd}"
        for listen, fd in zip(spec.listen, fds, strict=True)
        if _known_to_server_starter(addresses[listen.name])
    ]
    return env | ({"SERVER_STARTER_PORT": ";".join(ports)} if ports else {})


def _known_to_server_starter(address: str) -> bool:
    return address.startswith((f"{Scheme.TCP}://", f"{Scheme.UNIX}://"))


def _takes_listen_fds(argv: tuple[str, ...], listen: tuple[str, ...]) -> bool:
    return bool(listen) and not placeholder.names(argv)


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
    situation = Situation(
        service=service.name,
        listen=service.listen,
        env=env,
        cwd=cwd,
        drain_timeout=service.drain_timeout,
        find=lambda program: find(program, env, cwd),
        addresses=tuple(
            str(listens[name].address).partition("://")[2] for name in service.listen if listens
        ),
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
    entry = _passwd(user)
    if entry is None:
        return {}
    names = {"USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return names | {"HOME": entry.pw_dir, "SHELL": entry.pw_shell}


def _passwd(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return None


def _check_accounts(service: ServiceConfig) -> None:
    key = f"service.{service.name}"
    entry = _passwd(service.user) if service.user else None
    if service.user and entry is None and not service.user.isdecimal():
        raise ConfigError(f"{key}.user = {service.user}: there is no such user", do="add the user")
    gid = _gid(service)
    uid = entry.pw_uid if entry else int(service.user or os.geteuid())
    if os.geteuid() != 0 and (uid != os.geteuid() or gid not in (None, os.getegid())):
        own = pwd.getpwuid(os.geteuid()).pw_name if _passwd(str(os.geteuid())) else os.geteuid()
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
    try:
        name = service.group
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"service.{service.name}.group = {service.group}: there is no such group",
            do="add the group",
        ) from None


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


# --- The program -------------------------------------------------------------------------------


def find(program: str, env: Mapping[str, str], cwd: str) -> str | None:
    """Return the file that execvpe(3) would run for `program`, None if there is none.

    What is not in the PATH is looked for beside our own interpreter: a server that was installed
    into the virtual environment of sockmgr is meant, whether or not that is activated.
    """
    if "/" in program:
        return str(Path(cwd, program)) if _runs(Path(cwd, program)) else None
    ours = str(Path(sys.executable).parent)
    for folder in (*env.get("PATH", os.defpath).split(os.pathsep), ours):
        path = Path(cwd, folder, program)
        if _runs(path):
            return str(path)
    return None


def _runs(path: Path) -> bool:
    # access(2) first: Path.is_file() raises where a directory above may not be entered.
    return os.access(path, os.X_OK, effective_ids=True) and path.is_file()


def _executable(shown: str, program: str, env: Mapping[str, str], cwd: str) -> str:
    found = find(program, env, cwd)
    if found is None:
        raise _not_found(shown, program, env, cwd)
    # The directory is pinned like cwd, but not the name itself: what `python` in a virtual
    # environment points to does not know of the environment.
    path = Path(os.path.realpath(Path(found).parent), Path(found).name)
    interpreter = _interpreter(path)
    if interpreter and find(interpreter, env, cwd) is None:
        raise SpawnError(
            f"{shown}: the first line of {path} names {interpreter}, which is not there",
            do="correct that line, or build the environment it belongs to anew",
        )
    return str(path)


def _not_found(shown: str, program: str, env: Mapping[str, str], cwd: str) -> SpawnError:
    if "/" not in program:
        path = env.get("PATH", os.defpath)
        return SpawnError(
            f"{shown}: {program} is not in the PATH of the workers ({path})",
            do="install it, give its full path, or set PATH in env",
        )
    file = Path(cwd, program)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        points = f", to which {file} points," if file.is_symlink() else ""
        return SpawnError(
            f"{shown}: {os.path.realpath(file)}{points} does not exist",
            do="correct the command; a relative one is looked for in cwd",
        )
    except OSError as error:
        return SpawnError(f"{shown}: {file}: {error.strerror}", do="correct the command")
    if stat.S_ISDIR(mode):
        return SpawnError(f"{shown}: {file} is a directory", do="name a program")
    return SpawnError(f"{shown}: {file} is not executable", do=f"chmod +x {file}")


def _interpreter(path: Path) -> str | None:
    """Return the program that a script's first line names; for `env NAME`, that NAME."""
    try:
        line = regular.first_bytes(path, 256).split(b"\n")[0]  # BINPRM_BUF_SIZE, linux/binfmts.h
    except OSError:  # it may be run but not read: then the kernel is to judge
        return None
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        named = (word for word in words[1:] if not word.startswith("-") and "=" not in word)
        return next(named, words[0])
    return words[0] if words else None

"""Start one program with exactly these descriptors, environment and identity. Keeps nothing.

os.posix_spawn, because its cost does not grow with the manager and it is safe beside threads. It
cannot set LISTEN_PID, the directory, the umask, limits or the user, so those are done by a chain
of programs that each exec the next one, in the process that was spawned: the pid stays the same.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import itertools
import os
import pwd
import re
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel.regular import first_bytes

SHELL = "/bin/sh"
ENV = "/usr/bin/env"
_CAP_SYS_RESOURCE = 24
_SPARE_FILES = 16  # descriptors that a start leaves free: to read /proc, to answer clients

# Variables that a shell drops (no identifiers), changes or refuses to take over; dash(1), bash(1).
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OF_THE_SHELL = frozenset({
    "IFS", "OPTIND", "OPTARG", "OPTERR", "PPID", "LINENO", "UID", "EUID", "GROUPS", "SHELLOPTS",
    "BASHOPTS", "BASHPID", "BASH_VERSINFO", "FUNCNAME", "DIRSTACK", "PIPESTATUS", "RANDOM",
    "SRANDOM", "SECONDS", "HISTCMD", "POSIXLY_CORRECT",
})  # fmt: skip
# Those it sets by itself; env(1) puts them right again.
_SET_BY_A_SHELL = ("PWD", "OLDPWD", "SHLVL", "_")

# Names as in getrlimit(2) without RLIMIT_; prlimit(1) has an option of the same name for each.
LIMITS = frozenset({
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC",
    "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start.

    `executable` is the file to run, absolute or relative to `cwd`; the program sees it as its
    argv[0]. `fds` become 3, 4, ... in this order. `stdout` and `stderr` become 1 and 2. All of them
    are borrowed. `env` is the whole environment; with `set_listen_pid` it gets LISTEN_PID as well.
    """

    argv: Sequence[str]
    executable: str
    env: Mapping[str, str]
    cwd: str
    fds: Sequence[int] = ()
    umask: int | None = None
    user: str = ""
    group: str = ""
    limits: Sequence[tuple[str, int, int]] = ()
    set_listen_pid: bool = True
    stdout: int = 1
    stderr: int = 2


def spawn(launch: Launch) -> int:
    """Start it in a session of its own and return its pid, which the caller must reap."""
    _check_directory(launch)
    _check_executable(launch)
    argv = _chain(launch)
    env = dict(launch.env)
    if launch.set_listen_pid:
        env.pop("LISTEN_PID", None)
    try:
        with _open_files_as_given():
            return os.posix_spawn(
                _encoded(argv[0]),
                [_encoded(word) for word in argv],
                {_encoded(name): _encoded(value) for name, value in env.items()},
                file_actions=file_actions(launch.fds, stdout=launch.stdout, stderr=launch.stderr),
                setsid=True,  # which nothing that it starts can leave for a group of ours
                # Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over exec.
                setsigdef=signal.valid_signals(),
                setsigmask=(),
            )
    except OSError as error:
        raise _explain(launch, error) from error
    except ValueError as error:  # a NUL byte, or '=' in the name of a variable
        raise SpawnError(
            f"cannot start {launch.executable}: {error} in its arguments or environment",
            do="correct command or env in the configuration",
        ) from error


def _encoded(text: str) -> bytes:
    """Return text as bytes: of our own environment the same, of a config else those of the file.

    The locale need not have all characters of a config, which is always UTF-8.
    """
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")


def user_number(user: str) -> int:
    """Return the uid of a `user` as in Launch; -1 if there is none of that name any more."""
    try:
        return _user(user).pw_uid if user else os.geteuid()
    except SpawnError:
        return -1


def close_on_exec_all() -> None:
    """Mark every inherited descriptor above 2, so that only a spawn hands any on."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError as error:
                if error.errno != errno.EBADF:  # it was the descriptor of the listing itself
                    raise


# --- Descriptors -------------------------------------------------------------------------------


class OpenFiles:
    """How many descriptors this process may have, and the soft limit that it was started with."""

    given: int | None = None

    @classmethod
    def allow_all(cls, given: int | None = None) -> None:
        """Raise our soft limit to the hard one. What we start gets the one that was `given` to us.

        A soft limit of 1024 has a reason: a program that uses select(2) cannot have more.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        cls.given = soft if given is None else given
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    @classmethod
    def check(cls, spare: int = _SPARE_FILES) -> None:
        """Raise SpawnError if so few are left that a start could not be managed to its end."""
        try:
            lowest = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError as error:
            raise _no_files(error.strerror or "", error.errno) from error
        os.close(lowest)
        if cls.left_above(lowest) < spare:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            raise _no_files(f"{lowest} of {limit} file descriptors are in use", errno.EMFILE)

    @staticmethod
    def left_above(fd: int) -> int:
        """Return how many are left at least if `fd` was just opened: open(2) takes the lowest."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return limit - fd - 1


def _no_files(what: str, number: int | None) -> SpawnError:
    return SpawnError(
        f"too few descriptors are left: {what.lower()}",
        means="what runs goes on",
        do=_REMEDIES.get(number or 0, ""),
    )


@contextlib.contextmanager
def _open_files_as_given() -> Iterator[None]:
    """Have our soft limit as it was for as long as it takes to start something, which inherits it.

    It binds what is opened meanwhile, not what is open: getrlimit(2).
    """
    if OpenFiles.given is None:
        yield
        return
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OpenFiles.given, ours[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, ours)


def file_actions(
    fds: Sequence[int], *, stdout: int = 1, stderr: int = 2
) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
    """Put `fds` in places 3, 4, ..., those that stand in another's place by way of a free one.

    A free number may be in use in the manager: everything there is close-on-exec anyway.
    """
    wanted = [(stdout, 1), (stderr, 2), *zip(fds, itertools.count(3))]
    top = 3 + len(fds)
    sources = {source for source, _ in wanted}
    free = (number for number in itertools.count(top) if number not in sources)
    moved = dict(zip(sorted(fd for fd in sources if fd < top), free, strict=False))
    return [
        *((os.POSIX_SPAWN_DUP2, low, high) for low, high in moved.items()),
        *((os.POSIX_SPAWN_DUP2, moved.get(source, source), place) for source, place in wanted),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_CLOSE, high) for high in moved.values()),
    ]


# --- The chain ---------------------------------------------------------------------------------


def _chain(launch: Launch) -> list[str]:
    """Return the command line that ends in the program, or just the program's if that will do."""
    program = [_path(launch), *launch.argv[1:]]
    before = [*_limits(launch), *identity(launch)]
    moves = not _is_here(launch.cwd)
    if not (launch.set_listen_pid or moves or launch.umask is not None):
        return [*before, *program]
    if _shell_will_do(launch):
        # As the worker's user: root may be a stranger in the worker's directory (NFS).
        return [*before, *_shell(launch), *program]
    # First, because the worker's user need not be able to read our Python.
    return [*_launcher(launch), *before, *program]


def _shell_will_do(launch: Launch) -> bool:
    there = os.access(SHELL, os.X_OK) and os.access(ENV, os.X_OK)
    # env(1) would take a program with '=' in its path for a variable.
    return there and "=" not in _path(launch) and all(map(_survives_a_shell, launch.env))


def _survives_a_shell(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _OF_THE_SHELL


def _shell(launch: Launch) -> list[str]:
    # Values are positional parameters, so nothing in them is ever code.
    steps, values = ['cd -P -- "$1"', "shift"], [launch.cwd]
    if launch.umask is not None:
        steps += ['umask "$1"', "shift"]
        values.append(f"{launch.umask:04o}")
    for name in _SET_BY_A_SHELL:
        values += [] if name in launch.env else ["-u", name]
    values += [f"{name}={launch.env[name]}" for name in _SET_BY_A_SHELL if name in launch.env]
    listen_pid = "LISTEN_PID=$$ " if launch.set_listen_pid else ""
    steps.append(f'{listen_pid}exec {ENV} "$@"')
    return [SHELL, "-c", " && ".join(steps), "sh", *values]


def _launcher(launch: Launch) -> list[str]:
    """The same in Python, ten times as slow, for an environment that no shell hands on whole."""
    script = str(Path(__file__).parent.parent / "exec.py")
    options = [f"--chdir={launch.cwd}"]
    if launch.umask is not None:
        options.append(f"--umask={launch.umask:04o}")
    if not launch.set_listen_pid:
        options.append("--keep-listen-pid")
    return [sys.executable, "-I", "-S", script, *options, "--"]


def _limits(launch: Launch) -> list[str]:
    if not launch.limits:
        return []
    options = []
    for name, soft, hard in launch.limits:
        _check_limit(name, soft, hard)
        values = ("unlimited" if value == -1 else str(value) for value in (soft, hard))
        options.append(f"--{name.lower()}={':'.join(values)}")
    return [_tool("prlimit", "limits"), *options, "--"]


def _check_limit(name: str, soft: int, hard: int) -> None:
    def height(value: int) -> float:
        return float("inf") if value == -1 else value

    if name not in LIMITS:
        allowed = ", ".join(sorted(LIMITS))
        raise SpawnError(f"there is no resource limit named {name!r}", do=f"use one of {allowed}")
    if height(soft) > height(hard):
        raise SpawnError(
            f"limit {name}: the soft limit {soft} is above the hard limit {hard}",
            do="lower the soft limit or raise the hard one",
        )
    number = getattr(resource, f"RLIMIT_{name}", None)
    if number is None:  # LOCKS: gone from Linux since 2.4
        return
    _, ours = resource.getrlimit(number)
    if height(hard) > height(ours) and not _has_capability(_CAP_SYS_RESOURCE):
        raise SpawnError(
            f"cannot raise the hard limit {name} to {hard}: the manager's own is {ours}",
            do=f"set Limit{name}={hard} in the manager's unit, or lower it in the configuration",
        )


def identity(launch: Launch) -> list[str]:
    """Return what stands before a command to change user and group; nothing if they are ours."""
    if not (launch.user or launch.group):
        return []
    entry = _user(launch.user) if launch.user else None
    uid = os.geteuid() if entry is None else entry.pw_uid
    gid = _group(launch.group) if launch.group else entry.pw_gid if entry else os.getegid()
    if (uid, gid) == (os.geteuid(), os.getegid()) == (os.getuid(), os.getgid()) and uid != 0:
        return []
    if os.geteuid() != 0:
        raise SpawnError(
            f"cannot start {launch.executable} as {launch.user or launch.group}: "
            f"the manager runs as uid {os.geteuid()}, not as root",
            do="remove user and group from the configuration, or start the manager as root",
        )
    known = entry is not None and bool(entry.pw_name)
    options = [f"--reuid={uid}", f"--regid={gid}", "--init-groups" if known else "--clear-groups"]
    return [_tool("setpriv", "user and group"), *options, "--"]


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal():  # a uid without a name is fine, it has no supplementary groups
            return pwd.struct_passwd(("", "", int(name), int(name), "", "", ""))
        raise SpawnError(f"there is no user {name!r}", do="correct user, or add the user") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        do = "correct group, or add the group"
        raise SpawnError(f"there is no group {name!r}", do=do) from None


def _tool(name: str, purpose: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    found = shutil.which(name, path=path)
    if found is None:
        raise SpawnError(
            f"cannot set {purpose}: {name} was not found in {path}",
            do="install util-linux, which it is part of",
        )
    return found


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text("ascii", "replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> number & 1)


# --- What can be known before ------------------------------------------------------------------
# A shell reports by exit status 126 and 127 only, which the program may use as well.


def _path(launch: Launch) -> str:
    return str(Path(launch.cwd, launch.executable))


def _is_here(directory: str) -> bool:
    return Path(directory).samefile(".")


def _check_directory(launch: Launch) -> None:
    try:
        mode = Path(launch.cwd).stat().st_mode
    except OSError as error:
        raise SpawnError(
            f"cannot enter the working directory {launch.cwd}: {_reason(error)}",
            do="create it, or correct cwd",
        ) from error
    if not Path(launch.cwd).is_absolute():
        raise SpawnError(f"the working directory {launch.cwd!r} is not an absolute path")
    if not stat.S_ISDIR(mode):
        raise SpawnError(f"the working directory {launch.cwd} is not a directory", do="correct cwd")


def _check_executable(launch: Launch) -> None:
    path = _path(launch)
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        do = "install it, or correct the command or its PATH"
        raise SpawnError(f"command not found: {path}", do=do) from error
    except OSError as error:
        raise SpawnError(f"cannot run {path}: {_reason(error)}") from error
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise SpawnError(f"cannot run {path}: it is {what}", do="correct the command")
    if not os.access(path, os.X_OK, effective_ids=True):
        do = f"chmod +x {path}, or look for a noexec mount"
        raise SpawnError(f"cannot run {path}: it is not executable by the manager's user", do=do)
    _check_interpreter(launch, path)


def _check_interpreter(launch: Launch, path: str) -> None:
    try:
        line = first_bytes(path, 256).partition(b"\n")[0]  # BINPRM_BUF_SIZE, linux/binfmts.h
    except OSError:  # executable but not readable: the kernel will judge
        return
    found = re.match(rb"#![ \t]*([^ \t\0]+)", line)
    if found and not Path(launch.cwd, os.fsdecode(found[1])).exists():
        raise SpawnError(
            f"cannot run {path}: its interpreter {os.fsdecode(found[1])!r} does not exist",
            do="correct the first line of the file, or build the environment it is part of anew",
        )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


_REMEDIES = {
    errno.EAGAIN: "too many processes: raise TasksMax= or pids.max, LimitNPROC= or kernel.pid_max",
    errno.ENOMEM: "out of memory: free some, or raise the memory limit of the service",
    errno.E2BIG: "arguments and environment together are too long: shorten command or env",
    errno.EMFILE: "too many descriptors: raise LimitNOFILE= of the manager",
    errno.ENFILE: "the whole machine is out of descriptors: raise fs.file-max",
    errno.ENOEXEC: "it is neither a program for this machine nor a script with a #! line",
    errno.ENOENT: "it, its interpreter or its loader is missing: install it anew",
    errno.EACCES: "look at the permissions of the file and its directories, and for noexec mounts",
}


def _explain(launch: Launch, error: OSError) -> SpawnError:
    if error.errno == errno.EBADF:  # posix_spawn names the command, but means a file action
        numbers = [launch.stdout, launch.stderr, *launch.fds]
        return SpawnError(
            f"cannot hand descriptors {numbers} to {launch.executable}: one of them is not open, "
            f"or too many for the limit of {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}",
            do="raise LimitNOFILE= of the manager if it is the limit",
        )
    return SpawnError(
        f"cannot start {launch.executable}: {_reason(error)}",
        do=_REMEDIES.get(error.errno or 0, ""),
    )

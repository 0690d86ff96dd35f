"""Start one program with exactly these descriptors, environment and identity. Keeps nothing.

By os.posix_spawn, whose cost does not grow with the manager, and which is safe beside threads. It
cannot set LISTEN_PID, the directory, the umask, limits or the user. A chain of programs does that,
each of which execs the next in the same process, so that the pid stays the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import os
import resource
import signal
import stat
from collections.abc import Sequence
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel import open_files
from sockmgr.kernel.regular import interpreter
from sockmgr.kernel.spawn.chain import chain
from sockmgr.kernel.spawn.launch import Launch

_REMEDIES = open_files.REMEDIES | {
    errno.EAGAIN: "too many processes: raise TasksMax= or pids.max, LimitNPROC= or kernel.pid_max",
    errno.E2BIG: "arguments and environment together are too long: shorten command or env",
    errno.ENOEXEC: "it is neither a program for this machine nor a script with a #! line",
    errno.ENOENT: "it, its interpreter or its loader is missing: install it anew",
    errno.EACCES: "look at the permissions of the file and its directories, and for noexec mounts",
}

Action = tuple[int, ...] | tuple[int, int, str, int, int]

_SIGNALS = frozenset(map(int, signal.valid_signals()))  # 0.1 ms to ask for: not for each worker


def spawn(launch: Launch) -> int:
    """Start a program in a session of its own; return its pid, which the caller must reap.

    Raises SpawnError.
    """
    _check_directory(launch)
    _check_executable(launch)
    low = open_files.OpenFiles.given_allows(max(launch.stdout, launch.stderr, *launch.fds))
    argv = chain(launch if low else _limited_by_program(launch))
    env = dict(launch.env)
    if launch.set_listen_pid:
        env.pop("LISTEN_PID", None)
    try:
        with open_files.open_files_as_given() if low else contextlib.nullcontext():
            return os.posix_spawn(
                _encoded(argv[0]),
                [_encoded(word) for word in argv],
                {_encoded(name): _encoded(value) for name, value in env.items()},
                file_actions=file_actions(launch.fds, stdout=launch.stdout, stderr=launch.stderr),
                setsid=True,  # so that no descendant can join a process group of ours
                # Python ignores SIGPIPE and SIGXFSZ, and exec keeps ignored signals ignored.
                setsigdef=_SIGNALS,
                setsigmask=(),
            )
    except OSError as error:
        raise _explain(launch, error) from error
    except ValueError as error:  # a NUL byte, or '=' in the name of a variable
        raise SpawnError(
            f"cannot start {launch.executable}: {error} in its arguments or environment",
            do="correct command or env in the configuration",
        ) from error


def _limited_by_program(launch: Launch) -> Launch:
    """Return a launch by which prlimit(1) sets the soft limit of descriptors that was given to us.

    posix_spawn(3) refuses to hand on a descriptor above the soft limit of this process, so with one
    the soft limit cannot be lowered here.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = ("NOFILE", open_files.OpenFiles.given or hard, hard)
    return dataclasses.replace(launch, limits=[given, *launch.limits])


@functools.lru_cache(maxsize=512)  # of the workers of one service almost all texts are the same
def _encoded(text: str) -> bytes:
    """Return the bytes of a text from our environment (os.fsencode) or from a config (UTF-8).

    The locale may lack characters of a config.
    """
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")


def silent_actions(fds: Sequence[int]) -> list[Action]:
    """Return the actions that make `fds` 3, 4, ..., and /dev/null 0, 1 and 2."""
    silent: list[Action] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    return file_actions(fds, stdout=fds[0], stderr=fds[0]) + silent


def file_actions(fds: Sequence[int], *, stdout: int = 1, stderr: int = 2) -> list[Action]:
    """Return the actions that make `fds` 3, 4, ..., and /dev/null the standard input.

    A descriptor in the place of another one is first moved to a free number. That number may be in
    use in the manager, whose descriptors are all close-on-exec anyway.
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


def _explain(launch: Launch, error: OSError) -> SpawnError:
    if error.errno == errno.EBADF:  # the error names the command, but a file action failed
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


# What can be seen before the start is, for a clear error: the shell that execs the program reports
# no errno, but exits with 126 or 127, as the program may.
def _check_directory(launch: Launch) -> None:
    """Raise SpawnError if the working directory cannot be entered."""
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
    """Raise SpawnError if the kernel would not run the file."""
    path = launch.path
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
        words = interpreter(path)
    except OSError:  # executable but not readable: the kernel decides
        return
    if words and not Path(launch.cwd, words[0]).exists():
        raise SpawnError(
            f"cannot run {path}: its interpreter {words[0]!r} does not exist",
            do="correct the first line of the file, or build the environment it is part of anew",
        )


def _reason(error: OSError) -> str:
    """Return the text of an errno, for the middle of a sentence."""
    return os.strerror(error.errno).lower() if error.errno else str(error)

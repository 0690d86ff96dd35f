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
from collections.abc import Sequence

from sockmgr.errors import SpawnError
from sockmgr.kernel import open_files
from sockmgr.kernel.spawn.chain import chain
from sockmgr.kernel.spawn.checks import check_directory, check_executable, reason
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
    check_directory(launch)
    check_executable(launch)
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
        f"cannot start {launch.executable}: {reason(error)}",
        do=_REMEDIES.get(error.errno or 0, ""),
    )

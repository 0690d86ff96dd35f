"""Start one program with exactly these descriptors, environment and identity. Keeps nothing.

os.posix_spawn, because its cost does not grow with the manager and it is safe beside threads. It
cannot set LISTEN_PID, the directory, the umask, limits or the user, so those are done by a chain
of programs that each exec the next one, in the process that was spawned: the pid stays the same.
"""

from __future__ import annotations

import errno
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


def spawn(launch: Launch) -> int:
    """Start it in a session of its own and return its pid, which the caller must reap."""
    check_directory(launch)
    check_executable(launch)
    argv = chain(launch)
    env = dict(launch.env)
    if launch.set_listen_pid:
        env.pop("LISTEN_PID", None)
    try:
        with open_files.open_files_as_given():
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


def _explain(launch: Launch, error: OSError) -> SpawnError:
    if error.errno == errno.EBADF:  # posix_spawn names the command, but means a file action
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

"""How many descriptors this process may have, and which of them a program inherits."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from sockmgr.errors import SpawnError

_SPARE_FILES = 8  # descriptors that a start leaves free: to read /proc, to answer clients
REMEDIES = {
    errno.ENOMEM: "out of memory: free some, or raise the memory limit of the service",
    errno.EMFILE: "too many descriptors: raise LimitNOFILE= of the manager",
    errno.ENFILE: "the whole machine is out of descriptors: raise fs.file-max",
}


def close_on_exec_all() -> None:
    """Set close-on-exec for every descriptor above 2: only a spawn is to hand any on."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError as error:
                if error.errno != errno.EBADF:  # it was the descriptor of the listing itself
                    raise


class OpenFiles:
    """The limit of descriptors of this process. `given` is the soft limit at its start."""

    given: int | None = None

    @classmethod
    def allow_all(cls, given: int | None = None) -> None:
        """Raise our soft limit to the hard one; what we start gets `given` (None: ours now).

        A soft limit of 1024 has a reason: select(2) can take no descriptor above that.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        cls.given = soft if given is None else given
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    @classmethod
    def given_allows(cls, fd: int) -> bool:
        """Return whether the soft limit that was given to us is above `fd`."""
        return cls.given is None or fd < cls.given

    @classmethod
    def check(cls, spare: int = _SPARE_FILES) -> None:
        """Raise SpawnError if fewer than `spare` descriptors are left, which a start may need."""
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
        """Return how many descriptors are left above `fd`, a new one: open(2) uses the lowest."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return limit - fd - 1


def _no_files(what: str, number: int | None) -> SpawnError:
    return SpawnError(
        f"too few descriptors are left: {what.lower()}",
        means="what runs goes on",
        do=REMEDIES.get(number or 0, ""),
    )


@contextlib.contextmanager
def open_files_as_given() -> Iterator[None]:
    """Restore the soft limit of our start within the block, for a program that is started there.

    Descriptors that are open already may be above the limit: getrlimit(2).
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

"""Adds up what processes that have ended left to prometheus_client, and removes their files.

Run by path for one directory, as the user of the workers. The layout is that of MmapedDict in
prometheus_client from 0.18 on: how many bytes are used, padding, and for each key its length, its
text, padding, a value and a time.

Of each kind of file, one has the sums of all processes that have ended. It takes the place of its
predecessor in one step, and until the files that are new in it have been removed, their names stand
behind its entries: they do not count any more. So whoever dies when, nothing counts twice.
Workers can put anything there: no link is followed, and only regular files are read.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

ENDED = "_ended.db"
KIND = re.compile(
    r"(counter|histogram|summary|gauge_(?:live)?(?:all|max|min|mostrecent|sum))_([\w.-]+)\.db",
    re.ASCII,
)
_HEAD, _SIZE, _VALUE = struct.Struct("I4x"), struct.Struct("I"), struct.Struct("dd")
_MOST = 256  # files of a kind that are open at a time; what is left is for the next run
_NAMES = _MOST * 256  # bytes
LIMIT = 32 << 20  # bytes of a file: some 200,000 series

Entry = tuple[float, float]  # a value, and when a gauge had it
Entries = dict[bytes, Entry]  # by length, text and padding of the key


def _sum(one: Entry, other: Entry) -> Entry:
    return one[0] + other[0], max(one[1], other[1])


# What becomes of two processes that have ended. All other gauges end with their process.
_RULES: dict[str, Callable[[Entry, Entry], Entry]] = {
    "counter": _sum,
    "histogram": _sum,
    "summary": _sum,
    "gauge_sum": _sum,
    "gauge_max": max,
    "gauge_min": min,
    "gauge_mostrecent": lambda one, other: max(one, other, key=lambda entry: entry[1]),
}


def parse(data: bytes) -> tuple[Entries, list[str]]:
    """Return the entries of a file, and the names behind them; raise struct.error if it is torn."""
    entries: Entries = {}
    used = _HEAD.unpack_from(data)[0] if data else 0  # nothing: its process died before it wrote
    at = _HEAD.size
    while at < used:
        (size,) = _SIZE.unpack_from(data, at)
        end = at + (_SIZE.size + size) // 8 * 8 + 8
        entries[data[at:end]] = _VALUE.unpack_from(data, end)
        at = end + _VALUE.size
    return entries, data[at : at + _NAMES].decode(errors="replace").split()


def read(name: str, directory: int) -> bytes:
    """Return what is in a regular file; raise OSError, also if it has more than LIMIT bytes."""
    with open(_open(name, os.O_RDONLY, directory), "rb") as file:
        return file.read(LIMIT)


def merge() -> None:
    """Do it for the current directory; raise OSError."""
    # One at a time, while nobody reads: a file that is open counts as one of a process that lives.
    directory = os.open(".", os.O_RDONLY)
    if os.fstat(directory).st_uid != os.geteuid():
        return  # the user of the service has changed, and the directory is that of another one
    fcntl.flock(directory, fcntl.LOCK_EX)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # somebody opens a file that we have a lease on
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in Path().iterdir():
        if found := KIND.fullmatch(path.name):
            kinds[found[1]].append(path.name)
    for kind, names in kinds.items():
        _merge(kind, names, directory)


def _merge(kind: str, names: list[str], directory: int) -> None:
    rule, whole = _RULES.get(kind), Path(f"{kind}{ENDED}")
    entries, counted = parse(read(whole.name, directory) if whole.name in names else b"")
    room = LIMIT - _HEAD.size - _NAMES - sum(len(key) + _VALUE.size for key in entries)
    _remove(name for name in counted if name in names)
    fresh = (name for name in names if name not in (whole.name, *counted))
    held = dict(islice(((name, fd) for name in fresh if (fd := _take(name)) >= 0), _MOST))
    for name, fd in held.items():
        try:
            found, _ = parse(os.read(fd, LIMIT))
        except struct.error as error:
            print(f"{name} is torn, and what was counted there is lost: {error}")  # noqa: T201 - it is logged
            continue
        for key, entry in found.items() if rule else ():
            if rule and key in entries:
                entries[key] = rule(entries[key], entry)
            elif (room := room - len(key) - _VALUE.size) >= 0:
                entries[key] = entry
    if room < 0:
        print(f"{whole.name} is full, and what was counted for new series is lost")  # noqa: T201
    if rule and (held or counted):
        body = b"".join(key + _VALUE.pack(*entry) for key, entry in entries.items())
        data, new = _HEAD.pack(_HEAD.size + len(body)) + body, Path(f".{kind}")
        new.unlink(missing_ok=True)
        with open(new, "xb", opener=_open) as file:
            file.write(data + "\n".join(held).encode())
            file.flush()
            new.replace(whole)
            _remove(held)
            file.truncate(len(data))  # a later file of the same name is another one
    else:
        _remove(held)
    for fd in held.values():
        os.close(fd)


def _open(name: str, flags: int, directory: int | None = None) -> int:
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o666, dir_fd=directory)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size <= LIMIT:
        return fd
    os.close(fd)
    raise OSError(f"{name} is no regular file, or larger than {LIMIT} bytes")


def _take(name: str) -> int:
    """Open a file that nobody else has open, and hold up whoever opens it now; -1 if it is open."""
    fd = -1
    try:
        fd = _open(name, os.O_RDWR)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # F_SETLEASE(2const)
    except OSError:
        if fd >= 0:
            os.close(fd)
        return -1
    return fd


def _remove(names: Iterable[str]) -> None:
    for name in names:
        Path(name).unlink()


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    merge()

"""All unix sockets of this network namespace that have a name, from /proc/net/unix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ACCEPTS = 0x10000  # __SO_ACCEPTCON among the flags: the socket listens, unix(7)


@dataclass(frozen=True, slots=True)
class Row:
    """One socket: its inode, its path (or "@" and its abstract name), and whether it listens.

    A connection has the name of the listener that it came to. A path may have been removed.
    """

    inode: int
    name: str
    listens: bool


def rows() -> Iterator[Row]:
    """Yield the sockets.

    Raises FileNotFoundError where ProcSubset=pid (systemd.exec(5)) leaves /proc without the table.
    """
    text = Path("/proc/net/unix").read_text(errors="surrogateescape")
    for line in text.splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            yield Row(int(fields[6]), fields[7], bool(int(fields[3], 16) & _ACCEPTS))

"""The TCP ports that a worker opened itself: in words for a verdict. Looks only."""

from __future__ import annotations

from collections.abc import Container

from sockmgr.kernel import procfs
from sockmgr.kernel.listening import listening


def opened_by(pid: int, lent: Container[int]) -> list[str]:
    """Return where the process and its descendants listen on sockets that were not `lent` to them.

    None where that cannot be seen: other users' descriptors, other network namespaces.
    """
    try:
        by_inode = {one.inode: one for one in listening()}
    except OSError:  # sock_diag(7) is refused
        return []
    # The kernel's list of listening sockets has inodes but no pids; /proc has both.
    held = {inode for member in procfs.tree(pid) for inode in procfs.sockets_of(member)}
    own = sorted(inode for inode in held if inode in by_inode and inode not in lent)
    return sorted({str(by_inode[inode]) for inode in own})

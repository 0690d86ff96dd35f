"""The datagram socket to which workers say READY=1 and the like (sd_notify(3)). Owns its path.

Reads and parses; whether a message is believed, and what follows from it, is decided elsewhere.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sockmgr.errors import ListenError
from sockmgr.kernel import unix_node

MAX_SIZE = 4096
MAX_AT_ONCE = 16

_CREDENTIALS = struct.Struct("@iII")  # struct ucred, unix(7)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one process said. The kernel vouches for `pid` and `uid`, nobody for the fields."""

    pid: int
    uid: int
    fields: Mapping[str, str]


class NotifySocket:
    """The socket at `path`, which every user may write to: protect it by its directory."""

    def __init__(self, path: str | os.PathLike[str], left: socket.socket | None = None) -> None:
        """Bind it, in place of one that a former manager left there.

        `left` is what that manager bound to the path, owned: what was said to it since is heard.
        """
        self.path = Path(path)
        self.garbage = 0
        if left is not None:
            left.setblocking(False)
            self._socket, self._inode = left, self.path.stat().st_ino
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(self.path.lstat().st_mode):
                    self.path.unlink()
            # connect(2) and sendto(2) need write permission.
            unix_node.bind(self._socket, self.path, 0o666)
        except OSError as error:
            self._socket.close()
            raise _explain(self.path, error) from error
        self._inode = self.path.stat().st_ino

    @classmethod
    def abstract(cls) -> NotifySocket:
        """Bind one that has a name, but no path, for as long as there is no directory: unix(7).

        Everybody can write to it; belonging tells who is believed, as for the others.
        """
        made = cls.__new__(cls)
        made._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        made._socket.bind("")  # the kernel chooses one
        made.path, made.garbage, made._inode = Path(), 0, -1
        return made

    @property
    def address(self) -> str:
        """What NOTIFY_SOCKET is for who is to write to it."""
        name = self._socket.getsockname()
        return f"@{name[1:].decode()}" if isinstance(name, bytes) else str(self.path)

    def fileno(self) -> int:
        """Return the descriptor, borrowed, to wait on."""
        return self._socket.fileno()

    def receive(self) -> list[Message]:
        """Return what has arrived, at most MAX_AT_ONCE, so that a flood cannot starve the caller.

        Deal with all of it before the next call: that may answer a sender's BARRIER=1.
        """
        messages: list[Message] = []
        for _ in range(MAX_AT_ONCE):
            # A sender may exit once its barrier is answered, and who it was could no longer be
            # found out. The answer is that our copy of its descriptor is closed, so leave it.
            if messages and self._at_barrier():
                break
            try:
                message = self._receive_one()
            except BlockingIOError:
                break
            if message is None:
                self.garbage += 1
            elif "BARRIER" not in message.fields:
                messages.append(message)
        return messages

    @property
    def holds(self) -> bool:
        """Whether the path still leads to the socket."""
        with contextlib.suppress(OSError):
            return self.path.lstat().st_ino == self._inode
        return False

    def close(self) -> None:
        """Close it, and remove the path if it is still ours."""
        self._socket.close()
        if self.holds:
            self.path.unlink(missing_ok=True)

    def _at_barrier(self) -> bool:
        try:
            return b"BARRIER=1" in self._socket.recv(MAX_SIZE, socket.MSG_PEEK).split(b"\n")
        except BlockingIOError:
            return False

    def _receive_one(self) -> Message | None:
        # Room for the credentials, which come first, and no descriptors: the kernel drops those.
        room = socket.CMSG_LEN(_CREDENTIALS.size)
        data, ancillary, flags, _ = self._socket.recvmsg(MAX_SIZE, room, socket.MSG_CMSG_CLOEXEC)
        pid = uid = 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, uid, _ = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                _close_all(payload)
        fields = None if flags & socket.MSG_TRUNC else _parse(data)
        # pid 0: the sender is in a pid namespace that we cannot see.
        return Message(pid=pid, uid=uid, fields=fields) if fields and pid > 0 else None


def _parse(data: bytes) -> dict[str, str] | None:
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or not _KEY.fullmatch(key) or "\0" in value:
            return None
        fields[key] = value
    return fields


def _close_all(payload: bytes) -> None:
    descriptors = array.array("i")
    descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    for fd in descriptors:
        os.close(fd)


def _explain(path: Path, error: OSError) -> ListenError:
    if error.errno is None:  # Python itself: "AF_UNIX path too long", 107 bytes (unix(7))
        reason, do = str(error), "use a shorter runtime directory"
    elif error.errno == errno.EADDRINUSE:
        reason, do = "something that is not a socket is there", "remove it"
    else:
        reason, do = error.strerror or "", "create its directory, writable for the manager"
    return ListenError(f"cannot open the notify socket {path}: {reason}", do=do)

"""The datagram socket to which workers send READY=1 and the like (sd_notify(3)). Owns its path.

Reads and parses messages; manager/notify decides whether a message is believed and what follows.
"""

from __future__ import annotations

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
from sockmgr.kernel import rights, unix_node

MAX_SIZE = 4096
MAX_AT_ONCE = 16

_SO_PEEK_OFF = 42  # asm-generic/socket.h, socket(7); Python has no name for it
_CREDENTIALS = struct.Struct("@iII")  # struct ucred, unix(7)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. The kernel vouches for the sender's `pid` and `uid`; `fields` may be lies."""

    pid: int
    uid: int
    fields: Mapping[str, str]


class NotifySocket:
    """The socket at `path`. Every user may write to it: only its directory can protect it."""

    def __init__(self, path: str | os.PathLike[str], left: socket.socket | None = None) -> None:
        """Bind the socket, in place of one that an earlier manager left at the path.

        `left` is the socket of that manager, which is taken over instead: messages that came
        meanwhile are in it. Raises ListenError.
        """
        self.path = Path(path)
        self.garbage = 0
        self._returned = 0  # datagrams that receive() has read and left in the socket
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
        """Bind a socket with an abstract name (unix(7)), for a manager whose directory is gone.

        Every user can write to it, as to the others; so messages are believed by their sender.
        """
        made = cls.__new__(cls)
        made._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        made._socket.bind("")  # the kernel chooses one
        made.path, made.garbage, made._inode, made._returned = Path(), 0, -1, 0
        return made

    @property
    def address(self) -> str:
        """The value of NOTIFY_SOCKET for processes that are to write to this socket."""
        name = self._socket.getsockname()
        return f"@{name[1:].decode()}" if isinstance(name, bytes) else str(self.path)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> list[Message]:
        """Return the next messages, at most MAX_AT_ONCE, so that a flood cannot starve the caller.

        Handle all of them before the next call, which removes them from the socket. A process that
        is killed before that leaves them to the next one that reads it. To remove a BARRIER=1 is
        the answer to it: that every earlier message was handled (sd_notify_barrier(3)).
        """
        for _ in range(self._returned):
            self._socket.recv(1)
        self._returned = 0
        # From here on each look is at the datagram after the one before, and 0 is the first one.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        messages: list[Message] = []
        is_last = False
        while self._returned < MAX_AT_ONCE and not is_last:
            try:
                message, is_last = self._look_at_one()
            except BlockingIOError:
                break
            self._returned += 1
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
        """Close the socket, and remove the path if it is still ours."""
        self._socket.close()
        if self.holds:
            self.path.unlink(missing_ok=True)

    def _look_at_one(self) -> tuple[Message | None, bool]:
        """Return the next message, None for garbage, and whether no look can follow this one."""
        # Room for the credentials, which come first, but for no descriptors: the kernel drops them.
        room = socket.CMSG_LEN(_CREDENTIALS.size)
        how = socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC
        data, ancillary, flags, _ = self._socket.recvmsg(MAX_SIZE, room, how)
        pid = uid = 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, uid, _ = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
        rights.close_all(rights.received(ancillary))
        # The next look would be at the rest of one that is too long.
        is_cut = bool(flags & socket.MSG_TRUNC)
        fields = None if is_cut else _parse(data)
        # pid 0: the sender is in a pid namespace that we cannot see.
        message = Message(pid=pid, uid=uid, fields=fields) if fields and pid > 0 else None
        return message, is_cut


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


def _explain(path: Path, error: OSError) -> ListenError:
    if error.errno is None:  # Python itself: "AF_UNIX path too long", 107 bytes (unix(7))
        reason, do = str(error), "use a shorter runtime directory"
    elif error.errno == errno.EADDRINUSE:
        reason, do = "something that is not a socket is there", "remove it"
    else:
        reason, do = error.strerror or "", "create its directory, writable for the manager"
    return ListenError(f"cannot open the notify socket {path}: {reason}", do=do)

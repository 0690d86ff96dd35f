"""Hold the manager's descriptors, so that they outlive it. A program of its own: see main().

It decides nothing and starts nothing. It serves one client, a manager
(sockmgr.manager.takeover.keeper). When the client ends without D, the keeper holds everything for
the next manager for as long as a worker lives. A message is one request and has one reply, which
fits into any buffer, so the keeper never waits for a peer. A keeper goes on with the code that it
was started with when the manager is upgraded, so later managers must speak this protocol as well:

    T1        take: I am the manager   ->  .PID, or R: there is another one
    =NAME fds hold these under NAME, in place of what is there; 253 at most   ->  .
    -NAME     close what is under NAME   ->  .
    N         next of what is held   ->  =NAME fds, or . at the end
    D         the manager ends for good: close everything and exit
    anything else, or what cannot be done   ->  !REASON

Imports nothing that is written in Python. RSS 7 MB, PSS beside other Pythons 2.9 MB, of which an
interpreter that does nothing takes 2.7 (CPython 3.11).
"""

import posix
import select
import sys
from _socket import (
    CMSG_SPACE,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOL_SOCKET,
    socket,
)

LISTENER = 3
MAX_NAME = 255
MAX_FDS = 253  # in one message: SCM_MAX_FD, unix(7)
MAX_PEERS = 8
FD_SIZE = 4
RETRY_DELAY = 1000  # milliseconds


class Store:
    """The descriptors that are held, and the peers that may ask for them."""

    def __init__(self, listener: socket, path: str) -> None:
        self.listener = listener
        self.path = path
        self.identity = identity(path)
        self.held: dict[bytes, list[int]] = {}
        self.peers: dict[int, socket] = {}  # the client and those that have not spoken yet
        self.client: socket | None = None
        self.client_process = -1  # a pidfd
        self.had_client = False
        self.handing: list[tuple[bytes, list[int]]] = []
        self.workers: set[int] = set()  # pidfds, while there is no client
        # Reserved descriptors, for each peer and that pidfd: a keeper that has reached its limit of
        # open files could not be taken over otherwise.
        self.places = [posix.dup(0) for _ in range(MAX_PEERS + 1)]
        self.is_deaf = False

    def run(self) -> None:
        """Serve until the client has gone and no worker lives."""
        while self.client or self.workers or not self.had_client:
            for fd in self.wait():
                if fd in self.peers:
                    self.hear(self.peers[fd])
                elif fd == self.client_process:
                    self.settle()
                elif fd == LISTENER:
                    self.accept()
                else:
                    self.workers.discard(fd)
        self.leave()

    def wait(self) -> list[int]:
        """Return what is readable: peers first, since one may have to go before another comes."""
        watch = select.poll()
        listener = () if self.is_deaf else (LISTENER,)
        for fd in (*self.peers, self.client_process, *listener, *self.workers):
            if fd >= 0:
                watch.register(fd, select.POLLIN)
        found = watch.poll(RETRY_DELAY if self.is_deaf else None)
        self.is_deaf = False
        return [fd for fd, _ in found]

    def accept(self) -> None:
        """Accept a peer; if there are too many, drop the one that has been silent longest."""
        if len(self.peers) >= MAX_PEERS:
            self.drop(next(peer for peer in self.peers.values() if peer is not self.client))
        self.free_place()
        try:
            fd, _ = self.listener._accept()  # type: ignore[attr-defined]
        # No descriptor is left in the whole system. The peer still waits, so poll(2) would return
        # at once, again and again: leave the listener out for RETRY_DELAY.
        except OSError:
            self.reserve_place()
            self.is_deaf = True
            return
        peer = self.peers[fd] = socket(fileno=fd)
        if uid_of(peer) in (0, posix.geteuid()):
            self.hear(peer)
        else:
            self.drop(peer)

    def drop(self, peer: socket) -> None:
        """Close the connection of a peer. After the client, wait until its workers have ended."""
        del self.peers[peer.fileno()]
        peer.close()
        self.reserve_place()
        if peer is self.client:
            if self.client_process >= 0:
                posix.close(self.client_process)
                self.reserve_place()
            self.client_process = -1
            self.client = None
            owners = (fds for name, fds in self.held.items() if b"@" in name)
            self.workers = {fd for fds in owners for fd in fds if is_pidfd(fd)}

    def settle(self) -> None:
        """Drop the client if it has gone, after obeying what it had sent before."""
        while self.client and has_gone(self.client, self.client_process):
            if not self.hear(self.client):
                self.drop(self.client)

    def free_place(self) -> None:
        """Give up a reserved descriptor, so that another can be opened."""
        if self.places:
            posix.close(self.places.pop())

    def reserve_place(self) -> None:
        try:
            self.places.append(posix.dup(0))
        except OSError:  # the limit was lowered meanwhile
            return

    def hear(self, peer: socket) -> bool:
        """Obey one request, or drop a peer that has gone; return False if there is no request."""
        try:
            request, fds, is_whole = receive(peer)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # reported once; what the peer sent before can still be read
            return True
        except OSError:
            request, fds, is_whole = b"", [], False
        if not request or (peer is not self.client and request != b"T1"):
            close_all(fds)
            self.drop(peer)
        elif not is_whole:
            close_all(fds)
            self.reply(peer, b"!it arrived in part: the keeper's limit of open files is too low")
        else:
            self.obey(peer, request, fds)
        return True

    def obey(self, peer: socket, request: bytes, fds: list[int]) -> None:
        """Do what a request says, and own its descriptors from here on."""
        verb, name = request[:1], request[1:]
        if verb == b"N":
            close_all(fds)
            self.hand_next(peer)
            return
        self.handing = []  # its descriptors may be closed now
        if verb == b"=" and name and fds:
            close_all(self.held.get(name, []))
            self.held[name] = fds
            self.reply(peer, b".")
            return
        close_all(fds)
        if verb == b"-":
            close_all(self.held.pop(name, []))
            self.reply(peer, b".")
        elif verb == b"T":
            self.take(peer)
        elif verb == b"D":
            self.leave()
        else:
            self.reply(peer, b"!it is no request that this keeper knows")

    def take(self, peer: socket) -> None:
        """Make a peer the client, unless there is one."""
        self.settle()  # it may have gone since poll(2) looked at it
        if self.client and peer is not self.client:
            self.reply(peer, b"R")
            if peer.fileno() >= 0:
                self.drop(peer)
            return
        if not self.client:
            self.free_place()
            self.client_process = process_of(peer)
        self.client = peer
        self.had_client = True
        self.workers = set()
        self.handing = list(reversed(self.held.items()))
        self.reply(peer, b".%d" % posix.getpid())

    def hand_next(self, peer: socket) -> None:
        """Send the client duplicates of the next descriptors that it has not had yet."""
        if not self.handing:
            self.reply(peer, b".")
            return
        name, fds = self.handing.pop()
        payload = b"".join(fd.to_bytes(FD_SIZE, sys.byteorder) for fd in fds)
        try:
            peer.sendmsg(
                [b"=" + name], [(SOL_SOCKET, SCM_RIGHTS, payload)], MSG_DONTWAIT | MSG_NOSIGNAL
            )
        except OSError as error:  # ETOOMANYREFS, unix(7)
            self.reply(peer, b"!errno %d of sendmsg" % (error.errno or 0))

    def reply(self, peer: socket, reply: bytes) -> None:
        """Answer at once, or drop a peer whose buffer is full, since it does not read."""
        try:
            peer.send(reply, MSG_DONTWAIT | MSG_NOSIGNAL)
        except BlockingIOError:
            self.drop(peer)
        except OSError:  # the peer has gone, but may have sent more requests before
            return

    def leave(self) -> None:
        """Remove the path and exit, which closes everything."""
        # In this order: a manager that sees the socket closed may bind the path at once.
        if self.identity and identity(self.path) == self.identity:
            posix.unlink(self.path)
        posix._exit(0)


def receive(peer: socket) -> tuple[bytes, list[int], bool]:
    """Return a message, its descriptors, and whether it is complete; b"" at the end.

    This program runs without the package, so it cannot use kernel/rights.
    """
    room = CMSG_SPACE(MAX_FDS * FD_SIZE)
    data, ancillary, flags, _ = peer.recvmsg(1 + MAX_NAME, room, MSG_DONTWAIT)
    fds = [
        int.from_bytes(payload[at : at + FD_SIZE], sys.byteorder)
        for level, kind, payload in ancillary
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
        for at in range(0, len(payload), FD_SIZE)
    ]
    return data, fds, not flags & (MSG_TRUNC | MSG_CTRUNC)


def uid_of(peer: socket) -> int:
    """Return the user that connected, as the kernel knows it: struct ucred, unix(7)."""
    return int.from_bytes(peer.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[4:8], sys.byteorder)


def has_gone(client: socket, process: int) -> bool:
    """Return whether a client is dead or has hung up; it may have sent something before.

    Its end of the connection may outlive it, in a child that it forked, until the child calls exec.
    """
    watch = select.poll()
    watch.register(client.fileno(), 0)
    if process >= 0:
        watch.register(process, select.POLLIN)
    return bool(watch.poll(0))


def process_of(peer: socket) -> int:
    """Return a pidfd of the process that connected, or -1 if it cannot be opened."""
    pid = int.from_bytes(peer.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], sys.byteorder)
    try:
        return posix.pidfd_open(pid)
    except OSError:
        return -1


def is_pidfd(fd: int) -> bool:
    """Return whether `fd` is a pidfd: waitid(2) says ECHILD then, and EINVAL or EBADF otherwise."""
    try:
        posix.waitid(posix.P_PIDFD, fd, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    except ChildProcessError:
        return True
    except OSError:
        return False
    return True


def close_all(fds: list[int]) -> None:
    """Close our copies; the manager and the workers have theirs."""
    for fd in fds:
        posix.close(fd)


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of the node at `path`, None if there is none."""
    try:
        found = posix.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def main() -> None:
    """Become a session of its own, apart from the manager that started this, then serve.

    The only argument is the path to which descriptor 3, a listening socket, is bound.
    """
    if posix.fork():
        posix._exit(0)
    posix.setsid()
    posix.chdir("/")
    for name in posix.listdir("/proc/self/fd"):
        if int(name) > LISTENER:
            try:  # noqa: SIM105 - contextlib is written in Python
                posix.close(int(name))
            except OSError:  # it was the descriptor of the listing itself
                pass
    listener = socket(fileno=LISTENER)
    listener.setblocking(False)
    # Once more: clients get by SO_PEERCRED the pid of the process that called listen(2) last.
    listener.listen(128)
    Store(listener, sys.argv[-1]).run()

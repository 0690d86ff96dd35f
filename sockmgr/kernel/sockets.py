"""Bind, adopt and name listening sockets.

The caller owns each socket that a function returns, and lends those that it passes. Nothing is
remembered, repaired or decided here.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import free_bind, unix_node
from sockmgr.kernel.accounts import group_number, user_number
from sockmgr.kernel.closing import closed_on_error

_INET = (socket.AF_INET, socket.AF_INET6)
_Target = tuple[socket.AddressFamily, tuple[object, ...]]
_PATH_MAX = 107  # sun_path is 108 bytes with its NUL, unix(7)
_NOTHING_CHANGED = "nothing else was opened, closed or changed"
_UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

# --- Bind ----------------------------------------------------------------------------------------


def bind(listen: Listen, *, reuse_port: bool) -> socket.socket:
    """Return a new socket at the address of `listen`; a stream socket listens already.

    With `reuse_port` a TCP or UDP socket is the first of a group (SO_REUSEPORT); the address must
    be free nevertheless. Raises ListenError, and then leaves nothing behind.
    """
    match listen.address.scheme:
        case Scheme.TCP | Scheme.UDP:
            return _bind_inet(listen, reuse_port=reuse_port)
        case Scheme.UNIX:
            path = Path(listen.address.path)
            _remove_stale(listen, path)
            return _bind_node(listen, path)
        case Scheme.ABSTRACT:
            return _bind_abstract(listen)
        case Scheme.FD:
            return _duplicate(listen)


def _bind_inet(listen: Listen, *, reuse_port: bool) -> socket.socket:
    """Bind an address that this host has, or else one that it may get later."""
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for absent, target in itertools.product((False, True), _resolve(listen)):
        try:
            return _bind_to(listen, target, reuse_port=reuse_port, absent=absent)
        except OSError as error:
            failure = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    raise _refusal(listen, failure) from failure


def _resolve(listen: Listen) -> Sequence[_Target]:
    address = listen.address
    if address.host in ("", "*"):
        return [
            (socket.AF_INET6, ("::", address.port)),
            (socket.AF_INET, ("0.0.0.0", address.port)),  # noqa: S104 - what "*" asks for
        ]
    try:
        # As bytes: of a str Python looks up the name's IDNA form, for which it loads 0.3 MB, and
        # raises UnicodeError for a label that is empty or too long. The config allows only ASCII.
        found = socket.getaddrinfo(
            address.host.encode(), address.port, type=_type(address), flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"cannot listen on {address}: {error.strerror}",
            means=_NOTHING_CHANGED,
            do=f"write an address of this host in listen.{listen.name}",
        ) from error
    # IPv4 first: clients of "localhost" try ::1 and then 127.0.0.1, some of them only the latter.
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return [(family, target) for family, _, _, _, target in found if family in _INET]


def _bind_to(listen: Listen, found: _Target, *, reuse_port: bool, absent: bool) -> socket.socket:
    """Bind a probe without SO_REUSEPORT, which fails if the port is taken, then the real socket.

    The probe also chooses the number for port 0: a TCP socket that was bound to port 0 itself
    would lose its port when a worker shuts it down.
    """
    family, target = found
    probe = _fresh(listen, family, str(target[0]), absent=absent)
    with probe:
        probe.bind(target)
        target = probe.getsockname()
        if probe.type == socket.SOCK_DGRAM:
            # Two UDP sockets would need SO_REUSEADDR, by which any program could take datagrams.
            probe.close()
        sock = _fresh(listen, family, str(target[0]), absent=absent)
        with closed_on_error(sock):
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(target)
            probe.close()
            if sock.type == socket.SOCK_STREAM:
                sock.listen(listen.backlog)
    return sock


def _type(address: Address) -> socket.SocketKind:
    return socket.SOCK_DGRAM if address.traits.is_datagram else socket.SOCK_STREAM


def _fresh(
    listen: Listen, family: socket.AddressFamily, host: str, *, absent: bool
) -> socket.socket:
    sock = socket.socket(family, _type(listen.address))
    if absent:
        free_bind.allow(sock)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit both; asyncio does not set them for an inherited listener.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _bind_abstract(listen: Listen) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(b"\0" + os.fsencode(listen.address.path))
        sock.listen(listen.backlog)
    except OSError as error:
        sock.close()
        raise _refusal(listen, error) from error
    return sock


def _duplicate(listen: Listen) -> socket.socket:
    try:
        copy = fcntl.fcntl(listen.address.fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError as error:
        raise _unfit(listen, "it is not open") from error
    try:
        return adopt(copy, listen)
    except BaseException:
        os.close(copy)
        raise


# --- Unix paths ----------------------------------------------------------------------------------


def bind_over(listen: Listen) -> socket.socket:
    """Return a new socket that takes over the path of `listen` in one step.

    It is bound beside the path and renamed over whatever is there. getsockname(2) returns the
    hidden name that it was bound to, also after the rename.
    """
    path = Path(listen.address.path)
    # Not longer than the name itself, or it might not fit into sun_path.
    beside = path.with_name(("." + os.urandom(8).hex())[: max(2, len(path.name))])
    sock = _bind_node(listen, beside)
    try:
        beside.rename(path)
    except OSError as error:
        sock.close()
        beside.unlink(missing_ok=True)
        raise _refusal(listen, error) from error
    return sock


def _bind_node(listen: Listen, path: Path) -> socket.socket:
    """Bind, set owner and mode, and listen last: until then every connect(2) is refused."""
    if len(os.fsencode(path)) > _PATH_MAX:
        raise ListenError(
            f"cannot listen on {listen.address}: the path is longer than {_PATH_MAX} bytes",
            means=_NOTHING_CHANGED,
            do=f"choose a shorter path in listen.{listen.name}",
        )
    uid, gid = owner(listen)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    try:
        unix_node.bind(sock, path, listen.mode)
        bound = True
        if (uid, gid) != (-1, -1):
            unix_node.give(path, uid, gid)
        sock.listen(listen.backlog)
    except OSError as error:
        sock.close()
        if bound:
            path.unlink(missing_ok=True)
        raise _refusal(listen, error) from error
    return sock


def owner(listen: Listen) -> tuple[int, int]:
    """Return the uid and gid that are to own a unix path (-1: unchanged); raise ListenError."""
    uid = user_number(listen.user) if listen.user else -1
    gid = group_number(listen.group) if listen.group else -1
    if uid is None or gid is None:
        unknown = f"user {listen.user!r}" if uid is None else f"group {listen.group!r}"
        raise ListenError(
            f"cannot listen on {listen.address}: there is no {unknown}",
            means=_NOTHING_CHANGED,
            do=f"create it or change listen.{listen.name}",
        )
    return uid, gid


def _remove_stale(listen: Listen, path: Path) -> None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _refusal(listen, error) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(
            f"cannot listen on {listen.address}: the path exists and is not a socket",
            means=_NOTHING_CHANGED,
            do=f"remove it or choose another path in listen.{listen.name}",
        )
    if not is_stale(path):
        raise ListenError(
            f"cannot listen on {listen.address}: another program accepts connections there",
            means=_NOTHING_CHANGED,
            do=f'stop the program that holds it ("ss -xlp src {path}") '
            f"or change listen.{listen.name}",
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(listen, error) from error


def is_stale(path: Path) -> bool:
    """Return whether no process listens at a socket's path any more."""
    try:
        return unix_node.listener_at(path, socket.SOCK_STREAM) is None
    except OSError:  # EPROTOTYPE: it is no stream socket; EACCES: it is not for us
        return False


# --- Adopt ---------------------------------------------------------------------------------------


def adopt(fd: int, listen: Listen) -> socket.socket:
    """Return a socket that owns `fd`, if it is what `listen` asks for.

    Raises ListenError otherwise; then `fd` stays open and the caller's.
    """
    try:
        found = os.fstat(fd)
    except OSError as error:
        raise _unfit(listen, f"file descriptor {fd} is not open") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise _unfit(listen, f"file descriptor {fd} is not a socket")
    sock = socket.socket(fileno=fd)
    flaw = _flaw(sock, listen.address)
    if flaw:
        name = describe(sock)
        sock.detach()
        raise _unfit(listen, f"file descriptor {fd} ({name}) {flaw}")
    sock.set_inheritable(False)
    return sock


def _flaw(sock: socket.socket, address: Address) -> str:
    traits = address.traits
    if sock.type == socket.SOCK_STREAM and not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        return "is not listening"
    if traits.is_inherited:
        udp = sock.type == socket.SOCK_DGRAM and sock.family in _INET
        if sock.type == socket.SOCK_STREAM or (udp and sock.getsockname()[1]):
            return ""
        return "is neither a listening stream nor a bound UDP socket"
    families = _INET if traits.is_internet else (socket.AF_UNIX,)
    if sock.family not in families or sock.type != _type(address):
        return f"is not a {address.scheme} socket"
    if not same_address(sock, address):
        return "has another address"
    return ""


def same_address(sock: socket.socket, address: Address) -> bool:
    """Return whether `sock` is bound to `address`; port 0 is any port, fd any socket."""
    if address.traits.is_inherited:
        return True
    name = sock.getsockname()
    if address.traits.is_internet:
        if sock.family not in _INET or sock.type != _type(address):
            return False
        if address.port not in (0, name[1]):
            return False
        return _same_host(name[0], address)
    if sock.family != socket.AF_UNIX:
        return False
    if not address.traits.has_path:
        return bool(name == b"\0" + os.fsencode(address.path))
    bound, path = Path(os.fsdecode(name)), Path(address.path)
    # getsockname(2) of a socket from bind_over() returns the hidden name beside the path.
    return bound == path or (bound.parent == path.parent and bound.name.startswith("."))


def _same_host(host: str, address: Address) -> bool:
    if address.host in ("", "*"):
        return host in ("::", "0.0.0.0")  # noqa: S104 - compared, not bound
    try:
        found = socket.getaddrinfo(address.host.encode(), 0, type=_type(address))
    except socket.gaierror:
        return False
    return any(target[0] == host for *_, target in found)


# --- Name ----------------------------------------------------------------------------------------


def describe(sock: socket.socket) -> str:
    """Return the address of `sock` in the form the config uses."""
    name = sock.getsockname()
    if sock.family in _INET:
        scheme = Scheme.TCP if sock.type == socket.SOCK_STREAM else Scheme.UDP
        return str(Address(scheme=scheme, host=name[0], port=name[1]))
    if sock.family != socket.AF_UNIX:
        return f"a socket of family {int(sock.family)}"
    if isinstance(name, bytes) and name[:1] == b"\0":
        return str(Address(scheme=Scheme.ABSTRACT, path=os.fsdecode(name[1:])))
    return str(Address(scheme=Scheme.UNIX, path=os.fsdecode(name)))


# --- Errors --------------------------------------------------------------------------------------


def _refusal(listen: Listen, error: OSError) -> ListenError:
    """Return the error for an errno of bind(2) or listen(2): what it means here, what to do."""
    address, name = listen.address, f"listen.{listen.name}"
    inet, seen_by = address.traits.is_internet, address.traits.seen_by
    what = f"cannot listen on {address}: {(error.strerror or str(error)).lower()}"
    do = f"change {name}"
    match error.errno:
        case errno.EADDRINUSE if inet:
            holder = f"{seen_by} sport = :{address.port}"
            do = f'stop the process that holds it ("{holder}") or change {name}'
        case errno.EADDRINUSE:
            do = f'stop the process that holds it ("{seen_by}") or change {name}'
        case errno.EACCES if inet:
            first = _UNPRIVILEGED_PORTS.read_text().strip()
            what += f"; ports below {first} (net.ipv4.ip_unprivileged_port_start) are privileged"
            do = (
                "take the socket from a systemd .socket unit, grant CAP_NET_BIND_SERVICE "
                f"(AmbientCapabilities=), lower that sysctl, or choose a higher port in {name}"
            )
        case errno.EACCES | errno.EPERM:
            do = f"let this user write to {Path(address.path).parent}, or change {name}"
        case errno.ENOENT | errno.ENOTDIR:
            what = f"cannot listen on {address}: there is no directory {Path(address.path).parent}"
            do = f"create it (RuntimeDirectory= in a systemd unit does), or change {name}"
    return ListenError(what, means=_NOTHING_CHANGED, do=do)


def _unfit(listen: Listen, flaw: str) -> ListenError:
    return ListenError(
        f"cannot adopt a socket for listener {listen.name} ({listen.address}): {flaw}",
        means=_NOTHING_CHANGED,
        do=f"pass a socket that fits, or change listen.{listen.name}",
    )

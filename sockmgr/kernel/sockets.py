"""Bind, adopt and name listening sockets.

Every function returns a socket that its caller owns, or names one that it borrows. Nothing here
remembers, repairs or decides.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import itertools
import os
import pwd
import secrets
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import free_bind, unix_node

_INET = (socket.AF_INET, socket.AF_INET6)
_TYPES = {
    Scheme.TCP: socket.SOCK_STREAM,
    Scheme.UDP: socket.SOCK_DGRAM,
    Scheme.UNIX: socket.SOCK_STREAM,
    Scheme.ABSTRACT: socket.SOCK_STREAM,
}
_Target = tuple[socket.AddressFamily, tuple[object, ...]]
_PATH_MAX = 107  # sun_path is 108 bytes with its NUL, unix(7)
_NOTHING_CHANGED = "nothing else was opened, closed or changed"
_UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

# --- Bind ----------------------------------------------------------------------------------------


def bind(listen: Listen, *, reuse_port: bool) -> socket.socket:
    """Return a new socket at the address of `listen`, listening if it is a stream.

    `reuse_port` makes a TCP or UDP socket the first of a group (SO_REUSEPORT); the address must
    be free nevertheless. Raises ListenError, and then leaves nothing behind.
    """
    match listen.address.scheme:
        case Scheme.TCP | Scheme.UDP:
            return _bind_inet(listen, reuse_port=reuse_port)
        case Scheme.UNIX:
            return _bind_path(listen)
        case Scheme.ABSTRACT:
            return _bind_abstract(listen)
        case Scheme.FD:
            return _duplicate(listen)


def _bind_inet(listen: Listen, *, reuse_port: bool) -> socket.socket:
    """Prefer an address that this host has, but one that may come later is bound, too."""
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
        found = socket.getaddrinfo(
            address.host, address.port, type=_TYPES[address.scheme], flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"cannot listen on {address}: {error.strerror}",
            means=_NOTHING_CHANGED,
            do=f"write an address of this host in listen.{listen.name}",
        ) from error
    # IPv4 first: whoever calls "localhost" tries ::1 and then 127.0.0.1, some only the latter.
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return [(family, target) for family, _, _, _, target in found if family in _INET]


def _bind_to(listen: Listen, found: _Target, *, reuse_port: bool, absent: bool) -> socket.socket:
    """Bind a probe without SO_REUSEPORT, so that a taken port is seen, then what is wanted.

    The probe also chooses the number for port 0: a TCP socket that was bound to port 0 itself
    would lose its port when a worker shuts it down.
    """
    family, target = found
    probe = _fresh(listen, family, str(target[0]), absent=absent)
    with probe:
        probe.bind(target)
        target = probe.getsockname()
        if listen.address.scheme is Scheme.UDP:
            # Without SO_REUSEADDR, which lets anybody take datagrams, two cannot be bound.
            probe.close()
        sock = _fresh(listen, family, str(target[0]), absent=absent)
        try:
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(target)
            probe.close()
            if sock.type == socket.SOCK_STREAM:
                sock.listen(listen.backlog)
        except BaseException:
            sock.close()
            raise
    return sock


def _fresh(
    listen: Listen, family: socket.AddressFamily, host: str, *, absent: bool
) -> socket.socket:
    sock = socket.socket(family, _TYPES[listen.address.scheme])
    if absent:
        free_bind.allow(sock)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit both; no asyncio server sets them on an inherited socket.
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


def _bind_path(listen: Listen) -> socket.socket:
    path = Path(listen.address.path)
    _remove_stale(listen, path)
    return _bind_node(listen, path)


def bind_over(listen: Listen) -> socket.socket:
    """Return a new socket that takes over the path of `listen` in one step.

    It is bound beside the path and renamed over whatever is there; getsockname() goes on telling
    the name that it was bound with.
    """
    path = Path(listen.address.path)
    # Not longer than the name it stands in for, or sun_path could not hold it.
    beside = path.with_name(("." + secrets.token_hex(8))[: max(2, len(path.name))])
    sock = _bind_node(listen, beside)
    try:
        beside.rename(path)
    except OSError as error:
        sock.close()
        beside.unlink(missing_ok=True)
        raise _refusal(listen, error) from error
    return sock


def _bind_node(listen: Listen, path: Path) -> socket.socket:
    """Bind, set owner and mode, and only then listen: before that every connect is refused."""
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
    """Return the uid and gid that a unix path is given to (-1: to nobody); raise ListenError."""
    user, group = listen.user, listen.group
    uid = gid = -1
    unknown = f"user {user!r}"
    try:
        if user:
            uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        unknown = f"group {group!r}"
        if group:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ListenError(
            f"cannot listen on {listen.address}: there is no {unknown}",
            means=_NOTHING_CHANGED,
            do=f"create it or change listen.{listen.name}",
        ) from error
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
    """Say whether this socket's path leads to nobody: whoever bound it is gone or shut down."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # its backlog is full (EAGAIN), not a stream (EPROTOTYPE), not for us
            return False
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
    scheme = address.scheme
    if sock.type == socket.SOCK_STREAM and not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        return "is not listening"
    if scheme is Scheme.FD:
        udp = sock.type == socket.SOCK_DGRAM and sock.family in _INET
        if sock.type == socket.SOCK_STREAM or (udp and sock.getsockname()[1]):
            return ""
        return "is neither a listening stream nor a bound UDP socket"
    families = _INET if scheme in (Scheme.TCP, Scheme.UDP) else (socket.AF_UNIX,)
    if sock.family not in families or sock.type != _TYPES[scheme]:
        return f"is not a {scheme} socket"
    if not same_address(sock, address):
        return "has another address"
    return ""


def same_address(sock: socket.socket, address: Address) -> bool:
    """Say whether `sock` is bound to `address`; port 0 is any port, fd any socket."""
    if address.scheme is Scheme.FD:
        return True
    name = sock.getsockname()
    if address.scheme in (Scheme.TCP, Scheme.UDP):
        if sock.family not in _INET or sock.type != _TYPES[address.scheme]:
            return False
        if address.port not in (0, name[1]):
            return False
        return _same_host(name[0], address)
    if sock.family != socket.AF_UNIX:
        return False
    if address.scheme is Scheme.ABSTRACT:
        return bool(name == b"\0" + os.fsencode(address.path))
    bound, path = Path(os.fsdecode(name)), Path(address.path)
    # A socket of bind_over() goes on telling the hidden name beside the path.
    return bound == path or (bound.parent == path.parent and bound.name.startswith("."))


def _same_host(host: str, address: Address) -> bool:
    if address.host in ("", "*"):
        return host in ("::", "0.0.0.0")  # noqa: S104 - compared, not bound
    try:
        found = socket.getaddrinfo(address.host, 0, type=_TYPES[address.scheme])
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
    """Say what an errno of bind(2) or listen(2) means for this address and what to do."""
    address, name = listen.address, f"listen.{listen.name}"
    inet = address.scheme in (Scheme.TCP, Scheme.UDP)
    what = f"cannot listen on {address}: {(error.strerror or str(error)).lower()}"
    do = f"change {name}"
    match error.errno:
        case errno.EADDRINUSE if inet:
            flags = "-ltnp" if address.scheme is Scheme.TCP else "-lunp"
            holder = f"ss {flags} sport = :{address.port}"
            do = f'stop the process that holds it ("{holder}") or change {name}'
        case errno.EADDRINUSE:
            do = f'stop the process that holds it ("ss -xlp") or change {name}'
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

"""Binding, adopting and naming sockets of every kind, and what is said when that fails."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import free_bind, queues, sockets, unix_node

ROOT = os.geteuid() == 0


def tcp(host: str = "127.0.0.1", port: int = 0, *, scheme: Scheme = Scheme.TCP) -> Listen:
    return Listen(name="http", address=Address(scheme=scheme, host=host, port=port), backlog=64)


def unix(path: Path, **more: object) -> Listen:
    return Listen(name="http", address=Address(scheme=Scheme.UNIX, path=str(path)), **more)  # type: ignore[arg-type]


def abstract(name: str) -> Listen:
    return Listen(name="http", address=Address(scheme=Scheme.ABSTRACT, path=name))


def fd(number: int) -> Listen:
    return Listen(name="http", address=Address(scheme=Scheme.FD, fd=number))


def as_nobody(listen: Listen) -> str:
    """Return what somebody without privileges, in a directory of his own, is told by bind()."""
    program = f"""if True:
        import encodings.idna, os, tempfile  # what bind() imports must be read before setuid
        from sockmgr.errors import ListenError
        from sockmgr.config.spec import Address, Listen, OnStop, Scheme
        from sockmgr.kernel import sockets

        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with tempfile.TemporaryDirectory() as here:
            os.chdir(here)
            try:
                sockets.bind({listen!r}, reuse_port=True)
            except ListenError as error:
                print(error)
            assert os.listdir(here) == []
    """
    program = re.sub(r"<(\w+\.\w+): '[^']*'>", r"\1", program)  # members of enums
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def open_fds() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


# --- TCP and UDP ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "tcp://127.0.0.1:{}"),
        ("::1", "tcp://[::1]:{}"),
        ("::", "tcp://[::]:{}"),
        ("", "tcp://[::]:{}"),
        ("*", "tcp://[::]:{}"),
        ("0.0.0.0", "tcp://0.0.0.0:{}"),
    ],
)
@pytest.mark.parametrize("reuse_port", [False, True])
def test_port_0_becomes_a_number_on_which_it_listens(
    host: str, url: str, *, reuse_port: bool
) -> None:
    with sockets.bind(tcp(host), reuse_port=reuse_port) as sock:
        port = sock.getsockname()[1]
        assert port > 0
        assert sockets.describe(sock) == url.format(port)
        assert queues.is_listening(sock)
        assert queues.backlog(sock) == 64
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) is reuse_port
        assert sock.getblocking()
        assert not sock.get_inheritable()


def test_accepted_connections_inherit_nodelay_and_keepalive() -> None:
    with (
        sockets.bind(tcp(), reuse_port=True) as sock,
        socket.create_connection(sock.getsockname()),
        sock.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_port_that_was_chosen_survives_shutdown_by_a_worker() -> None:
    with sockets.bind(tcp(), reuse_port=True) as sock:
        before = sock.getsockname()
        sock.shutdown(socket.SHUT_RDWR)
        assert not queues.is_listening(sock)
        sock.listen(64)
        assert queues.is_listening(sock)
        assert sock.getsockname() == before


def test_only_the_wildcard_of_ipv6_takes_ipv4_too() -> None:
    with (
        sockets.bind(tcp("::"), reuse_port=True) as sock,
        socket.create_connection(("127.0.0.1", sock.getsockname()[1])),
    ):
        assert queues.queued(sock) == 1
    with sockets.bind(tcp("::1"), reuse_port=True) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.parametrize("option", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_taken_port_is_an_error_even_if_its_holder_would_share(option: int | None) -> None:
    with socket.socket() as holder:
        if option is not None:
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        before = open_fds()
        with pytest.raises(ListenError) as caught:
            sockets.bind(tcp(port=port), reuse_port=True)
        assert open_fds() == before
    assert caught.value.what == f"cannot listen on tcp://127.0.0.1:{port}: address already in use"
    assert caught.value.means
    assert f"ss -ltnp sport = :{port}" in caught.value.do
    assert "listen.http" in caught.value.do


@pytest.mark.parametrize("option", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_taken_udp_port_is_an_error_even_if_its_holder_would_share(option: int | None) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        if option is not None:
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("127.0.0.1", 0))
        with pytest.raises(ListenError, match="in use") as caught:
            sockets.bind(tcp(port=holder.getsockname()[1], scheme=Scheme.UDP), reuse_port=True)
    assert "ss -lunp" in caught.value.do


def test_a_port_in_time_wait_is_free() -> None:
    sock = sockets.bind(tcp(), reuse_port=True)
    port = sock.getsockname()[1]
    with socket.create_connection(sock.getsockname()) as client:
        sock.accept()[0].close()  # the side that closes first waits
        assert client.recv(1) == b""
    sock.close()
    sockets.bind(tcp(port=port), reuse_port=True).close()


def test_udp_is_bound_and_counts_what_waits() -> None:
    with sockets.bind(tcp(scheme=Scheme.UDP), reuse_port=True) as sock:
        assert sockets.describe(sock) == f"udp://127.0.0.1:{sock.getsockname()[1]}"
        assert queues.queued(sock) == 0
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"", sock.getsockname())
        assert queues.queued(sock) > 0
        sock.recv(1)
        assert queues.queued(sock) == 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "two..dots", "a" * 64])
def test_a_name_that_no_host_has_is_an_error(host: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on") as caught:
        sockets.bind(tcp(host, 8000), reuse_port=True)
    assert "listen.http" in caught.value.do


@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::77"])
@pytest.mark.parametrize("scheme", [Scheme.TCP, Scheme.UDP])
def test_an_address_that_this_host_does_not_have_yet_is_bound(host: str, scheme: Scheme) -> None:
    with sockets.bind(tcp(host, scheme=scheme), reuse_port=True) as sock:
        assert sock.getsockname()[0] == host
        assert free_bind.is_absent(sock)


def test_an_address_that_this_host_has_is_preferred_and_not_absent() -> None:
    with sockets.bind(tcp("localhost"), reuse_port=True) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert not free_bind.is_absent(sock)


@pytest.mark.skipif(not ROOT, reason="only root can become a user without privileges")
def test_a_privileged_port_is_explained_to_who_may_not_bind_it() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first < 2:
        pytest.skip("every port is unprivileged here")
    told = as_nobody(tcp(port=1))
    assert "permission denied" in told
    assert f"ports below {first} (net.ipv4.ip_unprivileged_port_start)" in told
    assert "CAP_NET_BIND_SERVICE" in told
    assert ".socket unit" in told


# --- Unix ----------------------------------------------------------------------------------------


def test_a_unix_path_has_its_mode_from_the_first_instant_whatever_the_umask(tmp_path: Path) -> None:
    for umask, mode in ((0o077, 0o666), (0, 0o600), (0o777, 0o660)):
        before = os.umask(umask)
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                path = tmp_path / f"{mode:o}.sock"
                unix_node.bind(sock, path, mode)
                assert stat.S_IMODE(path.stat().st_mode) == mode
                assert os.umask(umask) == umask
        finally:
            os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a node away")
def test_what_somebody_put_in_the_place_of_a_socket_keeps_its_mode_and_owner(
    tmp_path: Path,
) -> None:
    secret, path = tmp_path / "secret", tmp_path / "web.sock"
    secret.touch(0o600)
    for put in (path.symlink_to, path.hardlink_to):
        put(secret)
        with pytest.raises(OSError, match=r"replaced|symbolic"):
            unix_node.give(path, 65534, 65534)
        path.unlink()
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_a_chmod_or_chown_of_a_listeners_path_never_hits_what_a_stranger_puts_there(
    tmp_path: Path,
) -> None:
    secret, place = tmp_path / "secret", tmp_path / "place"
    secret.touch(0o600)
    place.mkdir()
    os.chown(place, 65534, 65534)
    listen = unix(place / "web.sock", mode=0o666, user="nobody", group="")
    with sockets.bind(listen, reuse_port=False), _swapping(place, secret):
        for _ in range(1500):
            with contextlib.suppress(ListenError):
                sockets.bind_over(listen).close()
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o600)


@contextlib.contextmanager
def _swapping(place: Path, secret: Path) -> Iterator[None]:
    """Have another user put a link to `secret` in the place of every name that comes up."""
    program = (
        "import os, sys\n"
        "os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "print(flush=True)\n"
        "while True:\n"
        "    for name in os.listdir('.'):\n"
        "        try:\n"
        "            os.unlink(name); os.symlink(sys.argv[2], name)\n"
        "        except OSError: pass\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", program, str(place), str(secret)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        yield
        assert child.poll() is None
        child.kill()


def test_a_unix_path_has_the_mode_and_owner_that_were_asked_for(tmp_path: Path) -> None:
    user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(os.getegid())
    if ROOT:
        user, group = pwd.getpwnam("nobody"), grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    path = tmp_path / "web.sock"
    with sockets.bind(
        unix(path, mode=0o620, user=user.pw_name, group=group.gr_name), reuse_port=True
    ) as sock:
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o620
        assert (found.st_uid, found.st_gid) == (user.pw_uid, group.gr_gid)
        assert sockets.describe(sock) == f"unix://{path}"
        assert queues.backlog(sock) == min(
            4096, int(Path("/proc/sys/net/core/somaxconn").read_text())
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert queues.queued(sock) == 1
        sock.accept()[0].close()
        assert queues.queued(sock) == 0


def test_a_stale_unix_path_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()
    with sockets.bind(unix(path), reuse_port=False) as sock:
        assert queues.is_listening(sock)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_unix_path_is_left_alone_if_somebody_listens_there(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            other.listen()
        node = path.stat().st_ino
        with pytest.raises(ListenError, match="another program accepts") as caught:
            sockets.bind(unix(path), reuse_port=False)
        assert path.stat().st_ino == node
    assert f"ss -xlp src {path}" in caught.value.do


def test_a_unix_path_is_left_alone_if_its_backlog_is_full(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen(0)
        client.connect(str(path))
        with pytest.raises(ListenError, match="another program accepts"):
            sockets.bind(unix(path), reuse_port=False)


def test_a_path_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        sockets.bind(unix(path), reuse_port=False)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("missing/web.sock", {}, "there is no directory"),
        ("x" * 108, {}, "longer than 107 bytes"),
        ("web.sock", {"user": "nobody-of-that-name"}, "no user 'nobody-of-that-name'"),
        ("web.sock", {"group": "none-of-that-name"}, "no group 'none-of-that-name'"),
    ],
)
def test_a_unix_path_that_cannot_be_is_an_error_that_leaves_nothing(
    tmp_path: Path, name: str, more: dict[str, object], message: str
) -> None:
    before = open_fds()
    with pytest.raises(ListenError, match=message) as caught:
        sockets.bind(unix(tmp_path / name, **more), reuse_port=False)
    assert caught.value.means
    assert "listen.http" in caught.value.do
    assert list(tmp_path.iterdir()) == []
    assert open_fds() == before


@pytest.mark.skipif(not ROOT, reason="only root can become a user without privileges")
def test_an_owner_that_may_not_be_given_is_an_error_that_leaves_nothing() -> None:
    assert "not permitted" in as_nobody(unix(Path("web.sock"), user="root"))


def test_a_new_socket_takes_over_a_path_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with (
        sockets.bind(unix(path), reuse_port=False) as old,
        sockets.bind_over(unix(path, mode=0o600)) as new,
        socket.socket(socket.AF_UNIX) as client,
    ):
        assert list(tmp_path.iterdir()) == [path]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sockets.same_address(new, unix(path).address)
        client.connect(str(path))
        assert (queues.queued(old), queues.queued(new)) == (0, 1)


def test_an_abstract_name_listens_and_is_an_error_when_taken() -> None:
    name = f"sockmgr-test-{os.getpid()}"
    with sockets.bind(abstract(name), reuse_port=True) as sock:
        assert sockets.describe(sock) == f"unix-abstract:{name}"
        assert queues.is_listening(sock)
        with pytest.raises(ListenError, match="in use") as caught:
            sockets.bind(abstract(name), reuse_port=True)
        assert "ss -xlp" in caught.value.do


def test_a_unix_listener_that_was_shut_down_does_not_count_as_listening(tmp_path: Path) -> None:
    with sockets.bind(unix(tmp_path / "s"), reuse_port=False) as sock:
        sock.shutdown(socket.SHUT_RDWR)
        assert not queues.is_listening(sock)


# --- Adopt ---------------------------------------------------------------------------------------


def test_what_fits_is_adopted_and_owned(tmp_path: Path) -> None:
    name = f"sockmgr-adopt-{os.getpid()}"
    for listen in (
        tcp(),
        tcp("::1"),
        tcp(scheme=Scheme.UDP),
        unix(tmp_path / "s"),
        abstract(name),
    ):
        original = sockets.bind(listen, reuse_port=True)
        ino = queues.inode(original)
        number = original.detach()
        os.set_inheritable(number, True)
        with sockets.adopt(number, listen) as sock:
            assert sock.fileno() == number
            assert queues.inode(sock) == ino
            assert not sock.get_inheritable()


def test_what_does_not_fit_is_refused_and_stays_the_callers(tmp_path: Path) -> None:
    cases = [
        (socket.socket(), tcp(), "is not listening"),
        (sockets.bind(tcp(), reuse_port=False), tcp(port=1), "has another address"),
        (sockets.bind(tcp(), reuse_port=False), tcp("::1"), "has another address"),
        (sockets.bind(tcp(), reuse_port=False), unix(tmp_path / "s"), "is not a unix socket"),
        (sockets.bind(tcp(scheme=Scheme.UDP), reuse_port=False), tcp(), "is not a tcp socket"),
        (sockets.bind(unix(tmp_path / "a"), reuse_port=False), unix(tmp_path / "b"), "another"),
        (socket.socket(type=socket.SOCK_DGRAM), fd(0), "neither"),
        (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), fd(0), "neither"),
    ]
    for sock, listen, flaw in cases:
        with sock:
            with pytest.raises(ListenError, match=flaw):
                sockets.adopt(sock.fileno(), listen)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


def test_a_file_or_nothing_is_no_socket(tmp_path: Path) -> None:
    with (
        (tmp_path / "file").open("wb") as file,
        pytest.raises(ListenError, match="is not a socket"),
    ):
        sockets.adopt(file.fileno(), tcp())
    with pytest.raises(ListenError, match="is not open"):
        sockets.adopt(10_000, tcp())


def test_an_inherited_fd_is_duplicated_so_that_it_can_be_opened_again() -> None:
    with sockets.bind(tcp(), reuse_port=False) as inherited:
        for _ in range(2):
            with sockets.bind(fd(inherited.fileno()), reuse_port=False) as sock:
                assert sock.fileno() != inherited.fileno()
                assert queues.inode(sock) == queues.inode(inherited)
    before = open_fds()
    with pytest.raises(ListenError, match="is not open"):
        sockets.bind(fd(10_000), reuse_port=False)
    assert open_fds() == before


def test_overflows_of_this_namespace_are_counted() -> None:
    before = queues.listen_overflows()
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # one has room
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
    assert queues.listen_overflows() > before

"""`sockmgr run` that cannot start: it says why and what to do, exits, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import Done, Manager, marked, marked_environment, wait_for
from tests.e2e.programs.faults import FAULTS, UNSTARTABLE, explained, service
from tests.e2e.programs.release import Release, unharmed

ACTIVATE = Path(__file__).parent / "programs" / "activate.py"
NOBODY = 65534


def start(
    directory: Path,
    *arguments: str,
    before: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> Done:
    """Run `sockmgr run`, which must end by itself and leave neither process nor socket."""
    marked_env = marked_environment(env or {})
    control = directory / "other.sock"
    done = subprocess.run(
        [*before, sys.executable, "-m", "sockmgr", "run", "--control", str(control), *arguments],
        cwd=directory, env=marked_env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert not marked(marked_env), done.stderr
    assert not control.exists(), done.stderr
    assert not control.with_suffix(".notify").exists(), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return Done(
        code=done.returncode, stdout=done.stdout, stderr=done.stderr, began_at=0, ended_at=0
    )


def start_with(directory: Path, config: str | bytes, *, before: Sequence[str] = ()) -> Done:
    """Start with this config file, `bad.toml`."""
    file = directory / "bad.toml"
    file.write_bytes(config if isinstance(config, bytes) else config.encode())
    return start(directory, "-c", str(file), before=before)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("not a program")
    script = tmp_path / "script"
    script.write_text("#!/no/such/python\n")
    script.chmod(0o755)
    return tmp_path


# --- Configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_a_config_that_cannot_be_used_is_explained_and_exits_with_2(
    name: str, directory: Path
) -> None:
    done = start_with(directory, FAULTS[name].data(str(directory)))
    assert done.code == 2
    assert done.stderr.startswith("error: ")
    assert explained(FAULTS[name], str(directory), done.stderr), done.stderr
    assert not done.stdout


def test_a_config_error_names_the_file(directory: Path) -> None:
    done = start_with(directory, service("worker = 2"))
    assert done.stderr.startswith(f"error: {directory}/bad.toml:6:1: service.web.worker ")


def test_a_config_that_is_not_there_is_explained_and_exits_with_2(tmp_path: Path) -> None:
    done = start(tmp_path, "-c", str(tmp_path / "nowhere.toml"))
    assert done.code == 2
    assert f"cannot read {tmp_path}/nowhere.toml: No such file or directory" in done.stderr
    assert "correct the path" in done.stderr


def test_a_directory_as_config_is_explained_and_exits_with_2(tmp_path: Path) -> None:
    done = start(tmp_path, "-c", str(tmp_path))
    assert done.code == 2
    assert f"cannot read {tmp_path}: it is no regular file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--listen", "http=tcp://127.0.0.1:0"), "--listen needs a command"),
        (("--workers", "2"), "these options need a command"),
        (("--workers", "-2", "--", "sleep", "9"), "--workers"),
        (("--listen", "tcp://127.0.0.1:0", "--", "sleep", "9"), "it has no name"),
        (("--nonsense",), "No such option"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: Sequence[str], says: str, tmp_path: Path) -> None:
    done = start(tmp_path, *arguments)
    assert done.code == 2
    assert says in done.stderr, done.stderr


@pytest.mark.parametrize("name", UNSTARTABLE)
def test_a_command_that_cannot_be_run_is_explained_and_exits_with_2(
    name: str, directory: Path
) -> None:
    done = start_with(directory, UNSTARTABLE[name].data(str(directory)))
    assert done.code == 2
    assert explained(UNSTARTABLE[name], str(directory), done.stderr), done.stderr


def test_a_reload_refuses_the_same_configs_with_the_same_words_and_changes_nothing(
    directory: Path,
) -> None:
    release = Release(directory)
    with Manager(directory, release.config()) as manager, unharmed(manager):
        for name, fault in (*FAULTS.items(), *UNSTARTABLE.items()):
            manager.config.write_bytes(fault.data(str(directory)))
            done = manager.say("reload")
            assert done.code == 2, (name, done.stderr)
            assert "nothing was changed" in done.stderr, name
            assert explained(fault, str(directory), done.stderr), (name, done.stderr)
        manager.config.unlink()
        done = manager.say("reload")
        assert done.code == 2
        assert f"cannot read {manager.config}" in done.stderr
        manager.config.write_text(release.config())
        assert manager.leftovers() == [w["pid"] for w in manager.workers()]
        # Nothing was even begun: the next generation has the next number.
        assert manager.status()["services"]["web"]["rollout"] is None


# --- Ports ---------------------------------------------------------------------------------------


@contextmanager
def holder(*, reuse_port: bool) -> Iterator[int]:
    """Hold a port as another program does."""
    with closing(socket.socket()) as sock:
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def listening(port: int) -> str:
    return service(listen=f'http = "tcp://127.0.0.1:{port}"')


def assert_taken(done: Done, port: int) -> None:
    assert done.code == 1
    assert f"cannot listen on tcp://127.0.0.1:{port}: address already in use" in done.stderr
    assert f'stop the process that holds it ("ss -ltnp sport = :{port}")' in done.stderr
    assert "or change listen.http" in done.stderr


@pytest.mark.parametrize("reuse_port", [False, True], ids=["plain", "SO_REUSEPORT"])
def test_a_port_that_another_program_holds_is_refused(reuse_port: bool, tmp_path: Path) -> None:
    with holder(reuse_port=reuse_port) as port:
        assert_taken(start_with(tmp_path, listening(port)), port)


def test_a_port_that_another_manager_holds_is_refused_and_that_one_serves_on(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        port = int(manager.target().address[1])
        assert_taken(start_with(tmp_path, listening(port)), port)


def test_a_second_manager_on_one_control_socket_is_refused_and_the_first_serves_on(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        second = start(tmp_path, "--control", str(manager.control), "-c", str(manager.config))
        assert second.code == 1
        assert f"another manager (pid {manager.pid}) answers at {manager.control}" in second.stderr
        assert "it goes on serving; nothing was started" in second.stderr
        assert "--control" in second.stderr


def test_a_privileged_port_is_denied_with_the_ways_to_get_it() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if os.geteuid() != 0 or shutil.which("setpriv") is None or first == 0:
        pytest.skip("needs root, setpriv(1) and privileged ports, to do without the privilege")
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    # Under pytest's own directory nobody may look.
    with tempfile.TemporaryDirectory() as private:
        os.chown(private, NOBODY, NOBODY)
        arguments = ["--listen", "http=tcp://127.0.0.1:80", "--", "sleep", "1000"]
        done = start(Path(private), *arguments, before=nobody)
    assert done.code == 1
    assert "cannot listen on tcp://127.0.0.1:80: permission denied" in done.stderr
    assert f"ports below {first} (net.ipv4.ip_unprivileged_port_start)" in done.stderr
    assert "CAP_NET_BIND_SERVICE" in done.stderr


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{directory}/file", "the path exists and is not a socket"),
        ("{directory}/nowhere/http.sock", "there is no directory {directory}/nowhere"),
    ],
)
def test_a_unix_path_that_cannot_be_had_is_refused(path: str, says: str, directory: Path) -> None:
    listen = f'http = "unix://{path}"'.replace("{directory}", str(directory))
    done = start_with(directory, service(listen=listen))
    assert done.code == 1
    assert says.replace("{directory}", str(directory)) in done.stderr
    assert "listen.http" in done.stderr
    assert (directory / "file").read_text() == "not a program"


def test_a_port_taken_leaves_nothing_of_the_other_listeners(tmp_path: Path) -> None:
    with holder(reuse_port=False) as port:
        path = tmp_path / "first.sock"
        listen = f'first = "unix://{path}"\nhttp = "tcp://127.0.0.1:{port}"'
        assert_taken(start_with(tmp_path, service(listen=listen)), port)
        assert not path.exists()


# --- Sockets from systemd ------------------------------------------------------------------------


def activated(claim: str, *sockets: str) -> list[str]:
    """Return the command that passes these sockets, as systemd does, to the one that follows."""
    return [sys.executable, "-S", "-E", str(ACTIVATE), claim, *sockets, "--"]


def test_a_socket_from_systemd_that_no_listener_is_named_after_is_refused(tmp_path: Path) -> None:
    before = activated("all", "http=127.0.0.1:0", "admin=127.0.0.1:0")
    done = start_with(tmp_path, service(), before=before)
    assert done.code == 1
    assert "systemd passed a socket that no listener is named after: admin (tcp://127.0.0.1:" in (
        done.stderr
    )
    assert "nothing was started; the config names http" in done.stderr
    assert "make FileDescriptorName= in the .socket unit and the name under [listen] the same" in (
        done.stderr
    )


def test_fewer_descriptors_than_systemd_announced_are_refused(tmp_path: Path) -> None:
    done = start_with(tmp_path, service(), before=activated("2", "http=127.0.0.1:0"))
    assert done.code == 1
    assert "LISTEN_FDS=2 but descriptor 4 is not open" in done.stderr
    assert "look for a wrapper between systemd and sockmgr" in done.stderr


def test_more_descriptors_than_names_are_refused(tmp_path: Path) -> None:
    before = activated("1", "http=127.0.0.1:0", "admin=127.0.0.1:0")
    done = start_with(tmp_path, service(), before=before)
    assert done.code == 1
    assert "LISTEN_FDS=1 and LISTEN_FDNAMES=http:admin cannot be used" in done.stderr
    assert "look for a wrapper between systemd and sockmgr that changes them" in done.stderr


def test_a_number_of_descriptors_that_is_none_is_refused(tmp_path: Path) -> None:
    done = start_with(tmp_path, service(), before=activated("two", "http=127.0.0.1:0"))
    assert done.code == 1
    assert "LISTEN_FDS='two' is not a number" in done.stderr


class ActivatedManager(Manager):
    """A manager that was passed the socket of its listener `http`."""

    def _command(self, verb: str) -> Sequence[str]:
        before = activated("all", "http=127.0.0.1:0") if verb == "run" else []
        return [*before, *super()._command(verb)]


def test_a_socket_from_systemd_is_adopted_by_its_name(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with ActivatedManager(tmp_path, release.config()) as manager, unharmed(manager):
        wait_for(lambda: "listening name=http" in manager.log, "the listener")
        assert manager.workers()

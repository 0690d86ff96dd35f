"""Our side of the control socket: it finds the manager and waits no longer than told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from sockmgr.client.client import Client
from sockmgr.client.connection import NoManagerError, NotAskedError, StillWaitingError
from sockmgr.client.finding import default_control, find_control
from sockmgr.errors import ControlError
from tests.helpers.fake_manager import a_status, serving
from tests.helpers.raw_client import run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


def test_a_caller_says_when_nobody_is_there(path: Path) -> None:
    with pytest.raises(NoManagerError):
        Client(path).status()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoManagerError):
        Client(path).status()


def test_a_caller_is_told_of_a_manager_whose_path_was_removed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as lives:
        lives.bind(str(path))
        lives.listen()
        path.unlink()
        with pytest.raises(NoManagerError) as caught:
            Client(path).status()
    assert f"a manager lives whose control socket {path} was removed" in caught.value.means
    assert "sockmgr run" not in caught.value.do


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_caller_is_told_of_a_manager_that_is_another_users() -> None:
    """In a usual place, and at the path that it gave."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-", dir="/run") as place:
        control = Path(place, "of-another-user.sock")
        with socket.socket(socket.AF_UNIX) as lives:
            lives.bind(str(control))
            lives.listen()
            control.chmod(0o600)
            Path(place).chmod(0o711)
            told = [
                as_nobody("status", *about).stderr for about in ((), ("--control", str(control)))
            ]
    assert f"a manager of user root listens at {control}: run this as root" in told[0]
    assert f"user 65534 may not talk to the manager at {control}" in told[1]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")


@as_root
def test_a_manager_in_a_directory_of_our_own_variables_is_found_though_we_may_not_enter_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as lives:
        lives.bind(str(tmp_path / "seven-of-a-test.sock"))
        lives.listen()
        tmp_path.chmod(0o700)
        script = (
            "import os; from sockmgr.client.elsewhere import elsewhere; import pwd;"
            "os.setuid(65534); print(*(one.what for one in elsewhere('seven-of-a-test')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
    assert done.stdout == f"a manager of user root listens at {tmp_path}/seven-of-a-test.sock\n"


@as_root
@pytest.mark.parametrize("name", ["a-unit-of-a-test", None])
def test_a_manager_is_found_in_a_directory_that_may_be_entered_but_not_listed(
    name: str | None,
) -> None:
    """As units make it for members of a group: by the name in a config, and by its own."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-", dir="/run") as place:
        control = Path(place, f"{name or Path(place).name.removeprefix('sockmgr-')}.sock")
        with socket.socket(socket.AF_UNIX) as lives:
            lives.bind(str(control))
            lives.listen()
            control.chmod(0o666)
            Path(place).chmod(0o711)
            script = (
                "import os; from sockmgr.client.places import listening; os.setuid(65534);"
                f"print(*listening({name!r}))"
            )
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True
            )
    assert str(control) in done.stdout.split()


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb, in a Python that has all that it needs loaded before it becomes nobody."""
    script = (
        "import os, sys, sockmgr.cli.status, sockmgr.client.elsewhere;"
        "from sockmgr.cli import main;"
        "os.chdir('/'); os.setuid(65534); sys.argv[0] = 'sockmgr'; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )


def test_a_caller_does_not_wait_longer_than_it_was_told(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen(0)
        client = Client(path, timeout=0.2)
        for ask, error in (
            (client.status, StillWaitingError),
            (lambda: client.reload(()), NotAskedError),
        ):
            began = time.monotonic()
            with pytest.raises(error):
                ask()
            assert 0.1 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "hung up|reset by peer"),
        (b'{"parameters":{}}\0', "cannot be understood"),
        (b"what?\0", "cannot be understood"),
        (b'{"error":"org.varlink.service.PermissionDenied","parameters":{}}\0', "does not talk"),
        (b'{"error":"org.varlink.service.MethodNotFound","parameters":{}}\0', "refused"),
        (b'{"error":"io.sockmgr.Manager.Failed","parameters":{}}\0', "cannot be understood"),
        (b"x" * (17 * 2**20), "no end"),
    ],
)
def test_a_caller_makes_sense_of_a_server_that_makes_none(
    path: Path, answer: bytes, message: str
) -> None:
    async def strange(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def scenario() -> None:
        async with await asyncio.start_unix_server(strange, path):
            with pytest.raises(ControlError, match=message):
                await asyncio.to_thread(Client(path).status)

    run(scenario)


# --- Where managers are found --------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories where managers are looked for, and no other that a test could hit."""
    first, second = tmp_path / "first", tmp_path / "xdg" / "sockmgr"
    first.mkdir()
    second.mkdir(parents=True)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(first))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(second.parent))
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    return first, second


def test_the_option_wins_over_the_variable_and_that_over_the_name(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(places[0] / "one-of-a-test.sock"):
        assert find_control(None, "one-of-a-test") == places[0] / "one-of-a-test.sock"
        monkeypatch.setenv("SOCKMGR_CONTROL", "/by/variable")
        assert find_control(None, "one-of-a-test") == Path("/by/variable")
        assert find_control("/by/option", "one-of-a-test") == Path("/by/option")


def test_a_manager_is_found_by_its_name_wherever_it_lives(places: tuple[Path, Path]) -> None:
    with socket.socket(socket.AF_UNIX) as dead, serving(places[1] / "two-of-a-test.sock"):
        dead.bind(str(places[0] / "two-of-a-test.sock"))
        assert find_control(None, "two-of-a-test") == places[1] / "two-of-a-test.sock"
        with pytest.raises(NoManagerError, match="three-of-a-test"):
            find_control(None, "three-of-a-test")


def test_several_managers_and_no_name_is_an_error_that_lists_them(
    places: tuple[Path, Path],
) -> None:
    paths = places[0] / "four-of-a-test.sock", places[1] / "five-of-a-test.sock"
    with serving(paths[0]), serving(paths[1]), pytest.raises(ControlError) as caught:
        find_control(None, None)
    assert not isinstance(caught.value, NoManagerError)
    for path in paths:
        assert str(path) in caught.value.what


def test_the_sockets_of_applications_are_not_taken_for_managers(
    places: tuple[Path, Path],
) -> None:
    """One that hangs up on what is no HTTP, and a silent one that is a manager's listener."""
    path, listener = places[0] / "shop-of-a-test.sock", places[0] / "http.sock"

    async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_unix_server(hangs_up, places[1] / "a.sock"):
            assert await asyncio.to_thread(find_control, None, None) == path

    status = a_status()
    [(name, http)] = status.listeners.items()
    status.listeners[name] = replace(http, address=f"unix://{listener}")
    with serving(path, counted_status=lambda **_: status), socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(listener))
        silent.listen()
        run(scenario)


def test_a_manager_listens_in_the_first_place_that_is_private(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_control("shop") == places[0] / "shop.sock"
    places[0].chmod(0o777)
    assert default_control("shop") == places[1] / "shop.sock"
    places[1].rmdir()
    assert default_control("shop") == places[1] / "shop.sock"
    # Root's workers may have other users, and must reach the notify socket there.
    assert places[1].stat().st_mode & 0o777 == (0o700 if os.geteuid() else 0o711)
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"/no/such/place:{places[1]}")
    assert default_control("shop") == places[1] / "shop.sock"


@as_root
def test_a_directory_of_another_user_is_not_used(places: tuple[Path, Path]) -> None:
    os.chown(places[0], 65534, 65534)
    assert default_control("shop") == places[1] / "shop.sock"


@as_root
def test_a_runtime_directory_of_another_user_is_passed_over_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, told = tmp_path / "theirs", list[tuple[Path, str]]()
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65534, 65534)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    chosen = default_control("shop", lambda place, why: told.append((place, why)))
    assert not chosen.is_relative_to(theirs)
    assert list(theirs.iterdir()) == []
    [(place, why), *_] = told
    assert place == theirs / "sockmgr"
    assert why == f"{theirs} belongs to another user (65534)"


@as_root
@pytest.mark.parametrize(
    ("owner", "mode", "why"),
    [
        (65534, 0o700, "belongs to another user"),
        (0, 0o1777, "every user may write to"),
        (0, 0o777, "every user may write to"),
    ],
)
@pytest.mark.parametrize("by", ["option", "variable"])
def test_no_manager_starts_where_others_could_put_a_state_for_it(
    owner: int, mode: int, why: str, by: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    os.chown(place, owner, 0)
    path = str(place / "shop.sock")
    options, variables = (
        (("--control", path), {}) if by == "option" else ((), {"SOCKMGR_CONTROL": path})
    )
    done = subprocess.run(
        [sys.executable, "-m", "sockmgr", "run", *options, "--", "false"],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot use {path} as control socket: " in done.stderr
    assert why in done.stderr
    assert list(place.iterdir()) == []


def test_a_manager_is_found_in_the_users_own_directory_without_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    with pytest.raises(NoManagerError, match=f" /run/user/{os.geteuid()}/sockmgr"):
        find_control(None, "six-of-a-test")


@as_root
@pytest.mark.parametrize("others", [["/tmp"], ["/tmp", "/dev/shm"]], ids=lambda each: each[-1][1:])
def test_the_fallback_in_tmp_is_that_in_shared_memory_and_an_error_says_whose_both_are(
    others: list[str],
) -> None:
    uid = 54321 + os.getpid()  # of nobody
    program = (
        "import os\n"
        "from sockmgr.client.finding import default_control\n"
        "from sockmgr.errors import ControlError\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        "try:\n    print(default_control('shop'))\n"
        "except ControlError as error:\n    print(error.what)\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")}
    taken = [Path(f"{parent}/sockmgr-{uid}") for parent in others]
    try:
        for each in taken:
            each.mkdir(mode=0o777)
            os.chown(each, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        )
    finally:
        for parent in ("/tmp", "/dev/shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{parent}/sockmgr-{uid}").rmdir()
    if "/dev/shm" in others:
        assert all(f"{each} belongs to another user (" in done.stdout for each in taken)
    else:
        assert done.stdout == f"/dev/shm/sockmgr-{uid}/shop.sock\n"

"""What `python -m sockmgr.worker` runs, how it tells what is wrong, and its exit status."""

from __future__ import annotations

import resource
import socket
import sys
from pathlib import Path

import pytest
import uvicorn

from sockmgr.worker import server
from sockmgr.worker.application import BrokenError
from sockmgr.worker.options import Options
from tests.helpers.children import running, wait_for_exit
from tests.worker.runtime import PROGRAMS, serving, started


def body(directory: Path, app: str, *options: str) -> bytes:
    with serving(directory, *options, app=app) as worker:
        client = worker.client()
        client.get("/x")
        status, _, found = client.answer()
        assert status == "200"
        return found


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("shop:Site.asgi", b"asgi"),
        ("shop:create_app()", b"asgi"),
        ("shop:Site.wsgi", b"wsgi /x"),
        ("shop:decorated", b"wsgi /x"),
    ],
)
def test_an_application_is_found_by_its_path_and_its_kind_is_seen(
    app: str, says: bytes, tmp_path: Path
) -> None:
    assert body(tmp_path, app) == says


def test_the_kind_of_an_application_can_be_given(tmp_path: Path) -> None:
    assert body(tmp_path, "shop:unclear", "--interface", "wsgi") == b"wsgi /x"


def test_requests_to_a_wsgi_application_run_at_once_in_threads(tmp_path: Path) -> None:
    with serving(tmp_path, app="shop:at_once") as worker:
        clients = worker.client(), worker.client()
        for client in clients:
            client.get()
        assert [client.answer()[2] for client in clients] == [b"met", b"met"]


def test_the_application_sees_the_state_of_its_start_up_and_nothing_of_ours(tmp_path: Path) -> None:
    with serving(tmp_path) as worker:
        client = worker.client()
        client.get("/state")
        assert client.answer()[2] == b"{'started': b'yes'}"


def test_what_the_application_says_of_the_servers_log_stands(tmp_path: Path) -> None:
    (tmp_path / "quiet.py").write_text("""
import logging, sys
from edges import app
access = logging.getLogger("uvicorn.access")
access.handlers = [logging.StreamHandler(sys.stdout)]
access.handlers[0].setFormatter(logging.Formatter("ours: %(message)s"))
""")
    with serving(tmp_path, app="quiet:app", PYTHONPATH=str(tmp_path)) as worker:
        worker.warm()
        while not (line := worker.child.line()).startswith("ours: "):
            assert line
        assert '"GET / HTTP/1.1" 200' in line


def test_several_listeners_are_served_and_left_open_at_the_end() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        running(
            [sys.executable, "-u", "-P", "-m", "sockmgr.worker", "--fd", "3", "--fd", "4",
             "--keep-alive", "0.1", "edges:app"],
            fds=[one.fileno(), two.fileno()],
            cwd=str(PROGRAMS),
        ) as child,
    ):  # fmt: skip
        for listener in (one, two):
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.1 200"
        child.process.signal(15)
        assert wait_for_exit(child.process) == 0
        for listener in (one, two):
            socket.create_connection(listener.getsockname()).close()


def test_out_of_descriptors_connections_wait_until_there_are_some_again(tmp_path: Path) -> None:
    with serving(tmp_path) as worker:
        first = worker.warm()
        used = len(list(Path(f"/proc/{worker.child.pid}/fd").iterdir()))
        resource.prlimit(worker.child.pid, resource.RLIMIT_NOFILE, (used, used))
        waiting = worker.client()
        waiting.get()
        while "cannot accept: Too many open files" not in worker.child.line():
            pass
        first.close()
        assert waiting.answer() == ("200", False, b"")


# --- What is broken ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("shop", "'shop' does not name an application"),
        ("nowhere.shop:app", "there is no module nowhere"),
        (
            "shop:application",
            "no attribute application\n  callables there: create_app, wrapped, dec",
        ),
        ("shop:number", "shop:number is int, which cannot be called"),
        ("shop:unclear", 'set interface = "asgi" or interface = "wsgi"'),
        ("shop:create_app", 'write "shop:create_app()"'),
        ("shop:Site.wsgi()", "shop:Site.wsgi() failed: TypeError"),
    ],
)
def test_what_is_no_application_is_told_with_a_remedy_and_status_3(
    app: str, says: str, tmp_path: Path
) -> None:
    with started(tmp_path, app=app) as worker:
        assert says in worker.child.rest()
        assert worker.status() == 3


def test_code_that_cannot_be_imported_shows_its_own_traceback_and_nothing_of_ours(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text("import colours\n")
    (tmp_path / "colours.py").write_text("RED = 1 / 0\n")
    with started(tmp_path, app="main:app", cwd=tmp_path) as worker:
        told = worker.child.rest()
        assert worker.status() == 3
    assert told.count("  File ") == 2
    assert f'File "{tmp_path}/colours.py", line 1' in told
    assert "ZeroDivisionError: division by zero\nsockmgr.worker: cannot import main" in told


def test_a_certificate_that_is_not_there_is_broken_code(tmp_path: Path) -> None:
    with started(tmp_path, "--certfile", "nowhere.pem") as worker:
        assert "cannot use certfile = nowhere.pem: No such file" in worker.child.rest()
        assert worker.status() == 3


def test_a_start_up_that_fails_is_broken_code(tmp_path: Path) -> None:
    with started(tmp_path, START_UP="fails") as worker:
        assert "no database" in worker.child.rest()
        assert worker.status() == 3


@pytest.mark.parametrize(
    ("missing", "argv", "extra"),
    [
        ("uvicorn", ["edges:app"], "asgi"),
        ("zttp", ["edges:app", "--http2"], "http2"),
    ],
)
def test_a_package_that_is_missing_is_named_at_once(
    missing: str, argv: list[str], extra: str, tmp_path: Path
) -> None:
    app, *options = argv
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / f"{missing}.py").write_text(f"raise ModuleNotFoundError(name={missing!r})\n")
    with started(tmp_path, *options, app=app, PYTHONPATH=str(hidden)) as worker:
        told = worker.child.rest()
        assert f"{missing}, which " in told
        assert f"pip install 'sockmgr[{extra}]' into the environment of " in told
        assert worker.status() == 3


def test_a_uvicorn_that_does_not_know_zttp_is_told_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(uvicorn.config.HTTP_PROTOCOLS, "zttp", raising=False)
    with pytest.raises(
        BrokenError, match=r"does not speak by zttp\n  pip install 'sockmgr\[http2]"
    ):
        server.configure(Options(app="a:b", http="zttp", http2=True), lambda: never)


async def never(*_: object) -> None:
    raise AssertionError


def test_http2_by_what_does_not_speak_it_is_a_wrong_argument(tmp_path: Path) -> None:
    with started(tmp_path, "--http", "h11", "--http2") as worker:
        assert "--http2 is spoken by zttp, and not by h11" in worker.child.rest()
        assert worker.status() == 2


def test_a_uvicorn_that_does_not_fit_serves_and_drains_in_its_own_way_and_that_is_said(
    tmp_path: Path,
) -> None:
    (tmp_path / "other.py").write_text("""
import uvicorn.server
from edges import app
class State(uvicorn.server.ServerState):
    def __init__(self):
        super().__init__()
        self.connections = Connections()
class Connections(dict):
    add = lambda self, one: self.setdefault(one)
    discard = lambda self, one: self.pop(one, None)
uvicorn.server.ServerState = State
""")
    with serving(tmp_path, app="other:app", PYTHONPATH=str(tmp_path)) as worker:
        worker.warm().close()
        worker.child.process.signal(15)
        told = worker.child.rest()
        assert worker.status() == -15
    assert "lacks ServerState.connections: it drains in its own way" in told

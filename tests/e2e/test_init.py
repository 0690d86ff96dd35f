"""What `sockmgr init` writes runs: a real server of each kind answers behind the listener."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.apps import App
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.servers import MODES
from tests.helpers.load import Load

ASGI = """\
from shop.text import TEXT

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": TEXT})
"""
WSGI = """\
from shop.text import TEXT

class Shop:
    def __call__(self, environ, start_response):
        start_response("200 OK", [])
        return [TEXT]

def create_app():
    return Shop()

application = create_app()
"""
NODE = """\
const http = require('http');
const server = http.createServer((request, response) => response.end('hello'));
server.listen(%s);
process.on('SIGTERM', () => server.close(() => process.exit(0)));
"""
PACKAGE = '{"name": "shop", "scripts": {"start": "node server.js"}}'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def initialised(project: Path) -> str:
    """Return what init writes for a project, with a free port and a short probation."""
    command = [sys.executable, "-m", "sockmgr", "init", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = project / "sockmgr.toml"
    text = path.read_text().replace("8000", str(free_port()))
    text = text.replace('http = "tcp://0.0.0.0:', 'http = "tcp://127.0.0.1:')  # nobody else's
    text = text.replace('probation = "5s"', 'probation = "200ms"')
    text = text.replace("exclusive = true", "exclusive = true\nprobation = 0.2")
    path.unlink()
    return text


def answer(port: int) -> bytes:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", "/")
    body = client.getresponse().read()
    client.close()
    return body


def answer_of_late(port: int) -> bytes:
    """Return the answer of a server that is not known to have its port yet."""

    def found() -> bytes:
        with contextlib.suppress(ConnectionRefusedError):
            return answer(port)
        return b""

    return wait_for(found, "an answer")


def write(project: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "server"),
    [
        ({"src/shop/main.py": ASGI, "requirements.txt": "uvicorn"}, "uvicorn"),
        ({"shop/main.py": ASGI, "requirements.txt": "hypercorn"}, "hypercorn"),
        ({"src/shop/main.py": ASGI, "requirements.txt": "granian"}, "granian"),
        ({"shop/wsgi.py": WSGI, "requirements.txt": "gunicorn"}, "gunicorn"),
        ({"src/shop/wsgi.py": WSGI, "requirements.txt": "pyuwsgi"}, "uwsgi"),
        ({"shop/wsgi.py": WSGI, "Procfile": "web: gunicorn shop.wsgi -b :$PORT -w 2"}, "gunicorn"),
        ({"shop/wsgi.py": WSGI, "Procfile": "web: gunicorn $OPTIONS shop.wsgi"}, "gunicorn"),
    ],
    ids=["uvicorn", "hypercorn", "granian", "gunicorn", "uwsgi", "Procfile", "Procfile with shell"],
)
def test_a_python_application_is_served_and_reloaded(
    tmp_path: Path, files: dict[str, str], server: str
) -> None:
    if not (BIN / server).exists():
        pytest.skip(f"{server} is not installed")
    folder = next(name.rpartition("/")[0] for name in files if name.endswith(".py"))
    write(tmp_path, {**files, f"{folder}/text.py": "TEXT = b'hello'\n"})
    text = initialised(tmp_path)
    assert server in text
    with Manager(tmp_path, text) as manager:
        port = manager.target().address[1]
        assert answer(port) == b"hello"
        write(tmp_path, {f"{folder}/text.py": "TEXT = b'bye'\n"})
        assert manager.reload().code == 0
        assert answer(port) == b"bye"


@pytest.mark.parametrize(
    ("web", "app"),
    [
        ("cd backend && uvicorn app.main:app --port $PORT", ASGI),
        ("cd backend && gunicorn --workers=$(nproc) app.main  # as ever", WSGI),
        ("cd backend; gunicorn -w $((2*$(nproc)+1)) app.main --timeout 9 2>&1 | tee log", WSGI),
        ("PYTHONPATH=$PWD/backend uvicorn app.main:app --host 0.0.0.0 --port $PORT", ASGI),
        ("cd backend && gunicorn app.main --pid g.pid --access-logfile - >>log", WSGI),
        ('bash -c "cd backend && exec uvicorn app.main:app --port $PORT"', ASGI),
        (f"(cd backend && env A=1 nice {sys.executable} -m uvicorn app.main:app)", ASGI),
    ],
)
def test_what_the_web_line_of_a_procfile_says_is_served_and_reloaded(
    tmp_path: Path, web: str, app: str
) -> None:
    main = app.replace("from shop", "from app")
    write(tmp_path, {"backend/app/main.py": main, "backend/app/text.py": "TEXT = b'hello'\n"})
    write(tmp_path, {"Procfile": f"worker: celery -A x worker\nweb: {web}\n"})
    text = initialised(tmp_path)
    assert "# [service.worker]" in text
    with Manager(tmp_path, text) as manager:
        port = manager.target().address[1]
        assert answer(port) == b"hello"
        write(tmp_path, {"backend/app/text.py": "TEXT = b'bye'\n"})
        done = manager.reload()
        assert done.code == 0, done.stdout
        assert answer(port) == b"bye"


FOREIGN = {
    "supervisord.conf": "[program:web]\ncommand=uvicorn app:app --port 8000 --workers 2\n"
    "stopwaitsecs=9\n[program:idle]\ncommand=sleep 999\nstartsecs=0.1\n",
    "circus.ini": "[watcher:web]\ncmd=uvicorn --fd $(circus.sockets.web) app:app\n"
    "numprocesses=2\n[socket:web]\nport=8000\n",
}


@pytest.mark.parametrize("name", ["supervisord.conf", "circus.ini"])
def test_what_another_managers_config_runs_is_reloaded_under_load(
    tmp_path: Path, name: str
) -> None:
    app = App("asgi", tmp_path)
    for each in app.directory.glob("sockmgr.toml"):
        each.unlink()
    write(app.directory, {name: FOREIGN[name]})
    command = [sys.executable, "-m", "sockmgr", "init", "--from", name, "--stdout"]
    done = subprocess.run(command, cwd=app.directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace(":8000", ":0").replace('"uvicorn"', f'"{BIN / "uvicorn"}"')
    with Manager(app.directory, text) as manager:
        with Load(manager.target("web"), MODES) as load:
            app.deploy("2")
            done_reload = manager.reload()
            assert done_reload.code == 0, done_reload.stderr
            result = load.stop()
        assert not result.lost, result.failures()


def test_a_node_server_that_takes_a_descriptor_is_served_and_reloaded(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    write(tmp_path, {"package.json": PACKAGE, "server.js": NODE % "{ fd: 3 }"})
    with Manager(tmp_path, initialised(tmp_path)) as manager:
        assert answer(manager.target().address[1]) == b"hello"
        assert manager.reload().code == 0
        assert answer(manager.target().address[1]) == b"hello"


def test_a_node_server_that_opens_its_port_runs_and_is_replaced_by_itself(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    write(tmp_path, {"package.json": PACKAGE, "server.js": NODE % "process.env.PORT"})
    text = initialised(tmp_path)
    port = int(text.partition('PORT = "')[2].partition('"')[0])
    with Manager(tmp_path, text) as manager:
        assert answer_of_late(port) == b"hello"
        assert manager.reload().code == 0
        assert answer_of_late(port) == b"hello"

"""Each known server, run as its preset says, on a listener that is not its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sockmgr.config import announcement, config, servers
from sockmgr.config.spec import Spec
from sockmgr.errors import ConfigError
from sockmgr.kernel.spawn import Launch, spawn
from sockmgr.launch import additions, presets, resolve
from sockmgr.launch.call import recognise
from sockmgr.launch.executable import find
from sockmgr.launch.situation import Situation
from tests.e2e.harness import wait_for

APP = """
import asyncio, os

def released():
    with open(os.environ["RELEASE"]) as fifo:
        return fifo.read().encode()

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
    rest = await asyncio.to_thread(released) if scope["path"] == "/slow" else b"fast"
    await send({"type": "http.response.body", "body": rest})

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun "
    yield released() if environ["PATH_INFO"] == "/slow" else b"fast"
"""
PYTHON = sys.executable
COMMANDS = {
    "uvicorn": ["uvicorn", "app:asgi"],
    "uvicorn by module": [PYTHON, "-m", "uvicorn", "--fd", "{http}", "app:asgi"],
    "gunicorn sync": ["gunicorn", "app:wsgi"],
    "gunicorn gthread": ["gunicorn", "-k", "gthread", "--threads", "2", "app:wsgi"],
    "gunicorn asgi": ["gunicorn", "-k", "asgi", "app:asgi"],
    "uwsgi": ["uwsgi", "-w", "app:wsgi"],
    "uwsgi by fd": ["uwsgi", "--http-socket", "fd://{http}", "-w", "app:wsgi"],
    "hypercorn": ["hypercorn", "app:asgi"],
    "granian asgi": ["granian", "--interface", "asgi", "app:asgi"],
    "granian wsgi": [
        "granian",
        "--interface",
        "wsgi",
        "--blocking-threads",
        "2",
        "--workers-kill-timeout",
        "5",  # a worker of 2.8.9 may not end: granian then ends it
        "app:wsgi",
    ],
    "granian by module": [PYTHON, "-m", "granian", "--interface", "asgi", "app:asgi"],
}
SERVERS = ("uvicorn", "gunicorn", "uwsgi", "hypercorn", "granian")


@dataclass
class Worker:
    """A spawned server and its output; `pidfd` is readable when it has ended."""

    pid: int
    pidfd: int
    log: Path

    def end(self) -> int:
        """Wait until it has ended; return its status as Popen.returncode."""
        assert select.select([self.pidfd], [], [], 20)[0], f"still there: {self.log.read_text()}"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    os.mkfifo(tmp_path / "release")
    return tmp_path


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, folder: Path) -> Iterator[socket.socket]:
    family = socket.AF_INET if request.param == "tcp" else socket.AF_UNIX
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(folder / "http.sock"))
        sock.listen(64)
        yield sock


def spec_of(
    command: list[str], folder: Path, *, address: str = "tcp://127.0.0.1:0", **keys: object
) -> Spec:
    """Resolve `command` as the one service, with one listener `http`."""
    keys = {"cwd": str(folder), "env": {"RELEASE": str(folder / "release")}, **keys}
    parsed = config.from_arguments([f"http={address}"], command, keys=keys)
    bin_first = {"PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}"}
    return resolve.prepare(parsed.services[0], parsed.listens(), {**os.environ, **bin_first}).spec()


@contextlib.contextmanager
def started(spec: Spec, listener: socket.socket, folder: Path) -> Iterator[Worker]:
    log = folder / "log"
    with log.open("w") as output:
        env = dict(spec.env) | announcement.variables(spec, {"http": "tcp://127.0.0.1:1"})
        pid = spawn(
            Launch(
                argv=announcement.arguments(spec, 1),
                executable=spec.executable,
                env=env,
                cwd=spec.cwd,
                fds=[listener.fileno()],
                set_listen_pid=spec.set_listen_pid,
                stdout=output.fileno(),
                stderr=output.fileno(),
            )
        )
    worker = Worker(pid, os.pidfd_open(pid), log)
    try:
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):  # its group has ended with it
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # the test has reaped it
            os.waitpid(pid, 0)
        os.close(worker.pidfd)


def ask(listener: socket.socket, path: str) -> socket.socket:
    """Send a request; the connection waits in the queue until the server takes it."""
    client = socket.socket(listener.family)
    client.settimeout(20)
    client.connect(listener.getsockname())
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def read(client: socket.socket, until: bytes = b"") -> bytes:
    """Return what comes until the end, or until the bytes `until` have come."""
    answer = b""
    while part := client.recv(4096):
        answer += part
        if until and until in answer:
            break
    return answer


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_request_in_flight_is_answered_whole_and_the_exit_is_clean(
    command: list[str], listener: socket.socket, folder: Path
) -> None:
    name = listener.getsockname()
    address = f"unix://{name}" if listener.family == socket.AF_UNIX else "tcp://127.0.0.1:0"
    spec = spec_of(command, folder, address=address)
    with started(spec, listener, folder) as worker:
        with ask(listener, "/fast") as client:
            assert read(client).startswith(b"HTTP/1.1 200"), worker.log.read_text()
        with ask(listener, "/slow") as client:
            read(client, until=b"begun")
            os.kill(worker.pid, spec.stop_signal)
            # Half a second in which neither the worker nor the connection may end.
            assert select.select([client, worker.pidfd], [], [], 0.5)[0] == []
            (folder / "release").write_text("whole")
            assert b"whole" in read(client)
        assert worker.end() in spec.clean_exits, worker.log.read_text()
        with ask(listener, "/late"):  # what comes now waits for the next worker
            assert select.select([listener], [], [], 5)[0] == [listener]
    if listener.family == socket.AF_UNIX:
        assert (folder / "http.sock").is_socket()


# What stands for the launchers: behind so many words of their own they become the program, or have
# it as a child, as the real ones do.
BECOME = 'shift {words}; exec "$@"'
FORK = """shift {words}; "$@" & child=$!; trap 'kill -TERM $child' TERM; wait; wait $child"""
LAUNCHERS = {
    "uv run --no-sync": FORK,
    "uv run": FORK,
    "pdm run -p .": FORK,
    "tini --": FORK,
    "poetry run": BECOME,
    "pipenv run": BECOME,
    "opentelemetry-instrument --traces_exporter none": BECOME,
    "ddtrace-run": BECOME,
    "newrelic-admin run-program": BECOME,
    "bundle exec": BECOME,
    "nice -n 5": "",
    "nohup": "",
    "stdbuf -oL": "",
    "env -u HOME A=1": "",
    "env -i": "",
    "uv run python -m sockmgr.exec": FORK,
    "sh -c": "",
}


@pytest.fixture
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Return the words of a launcher; its stand-in, if it has one, is in the directory `bin`."""
    name, *words = str(request.param).split()
    if script := LAUNCHERS[request.param]:
        own = len(words) - 3 * ("sockmgr.exec" in words)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n" + script.format(words=own) + "\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return [name, *words]


@pytest.mark.parametrize(
    "server", ["uvicorn app:asgi", "gunicorn app:wsgi"], ids=["uvicorn", "gunicorn"]
)
@pytest.mark.parametrize("launcher", LAUNCHERS, indirect=True)
def test_a_server_behind_a_launcher_serves_drains_and_is_one_process(
    launcher: list[str], server: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    program, app = server.split()
    path = f"{folder}/bin:{Path(PYTHON).parent}:{os.environ['PATH']}"
    bare = launcher == ["env", "-i"]  # after which neither PATH nor RELEASE is there
    words = [*launcher, *(["PATH=" + path, f"RELEASE={folder}/release"] if bare else [])]
    command = [*words, f"exec {server}"] if launcher[0] == "sh" else [*words, program, app]
    env = {"RELEASE": str(folder / "release"), "PATH": path}
    spec = spec_of(command, folder, env=env)
    assert (program in " ".join(spec.argv), spec.stop_signal) == (True, signal.SIGTERM)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        started(spec, listener, folder) as worker,
    ):
        with ask(listener, "/fast") as client:
            assert read(client).startswith(b"HTTP/1.1 200"), worker.log.read_text()
        with ask(listener, "/slow") as client:
            read(client, until=b"begun")
            os.kill(worker.pid, spec.stop_signal)
            assert select.select([client, worker.pidfd], [], [], 0.5)[0] == []
            (folder / "release").write_text("whole")
            assert b"whole" in read(client)
        assert worker.end() in spec.clean_exits, worker.log.read_text()
    text = worker.log.read_text()
    assert text.count("Booting worker") + text.count("Started server process") == 1


@pytest.mark.parametrize("server", SERVERS)
def test_broken_code_ends_in_an_exit_that_is_known_as_broken(server: str, folder: Path) -> None:
    (folder / "app.py").write_text("raise RuntimeError('broken on purpose')")
    spec = spec_of(next(argv for argv in COMMANDS.values() if argv[0] == server), folder)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        started(spec, listener, folder) as worker,
    ):
        assert worker.end() in spec.broken_exits, worker.log.read_text()
        assert "broken on purpose" in worker.log.read_text()


@pytest.mark.parametrize("options", [[], ["-P"], ["-I"]], ids=["plain", "-P", "-I"])
@pytest.mark.parametrize("server", ["granian --interface asgi", "uvicorn --app-dir ."])
def test_an_application_under_a_launcher_does_not_import_from_sockmgrs_directory(
    server: str, options: list[str], folder: Path
) -> None:
    beside = Path(additions.LAUNCHER).with_name("keeper.py")
    assert beside.exists()
    (folder / "app.py").write_text(f"import {beside.stem}")
    command = [PYTHON, *options, "-m", *server.split(), "app:asgi"]
    spec = spec_of(command, folder, address=f"unix://{folder}/web.sock")
    assert {additions.LAUNCHER, additions.UVICORN_LAUNCHER} & set(spec.argv)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        started(spec, listener, folder) as worker,
    ):
        worker.end()
        assert f"No module named '{beside.stem}'" in worker.log.read_text()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn_on_a_unix_socket_answers_whom_it_had_accepted_when_it_was_told_to_stop(
    loop: str, http: str, folder: Path
) -> None:
    path = str(folder / "web.sock")
    command = ["uvicorn", "--loop", loop, "--http", http, "app:asgi"]
    spec = spec_of(command, folder, address=f"unix://{path}")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        listener.bind(path)
        listener.listen()
        with started(spec, listener, folder) as worker:
            client.connect(path)
            wait_for(lambda: not select.select([listener], [], [], 0)[0], "it to be accepted")
            os.kill(worker.pid, spec.stop_signal)
            # It looks at that every tenth of a second, and would close the connection.
            assert select.select([client, worker.pidfd], [], [], 0.3)[0] == []
            client.settimeout(30)
            client.sendall(b"GET /fast HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert read(client).startswith(b"HTTP/1.1 200"), worker.log.read_text()
            assert worker.end() in spec.clean_exits, worker.log.read_text()


# --- What is made of a command, nothing run -----------------------------------------------------


def fit(
    *command: str,
    cwd: str = "/",
    listen: tuple[str, ...] = ("http",),
    preset: str = "auto",
    **env: str,
) -> presets.Fit:
    env = {"PATH": str(Path(PYTHON).parent), **env}
    situation = Situation(
        service="web",
        listen=listen,
        env=env,
        cwd=cwd,
        drain_timeout=30.0,
        find=lambda program: find(program, env, cwd),
        addresses=("127.0.0.1:80", "/run/a")[: len(listen)],
    )
    return presets.fit(command, situation, preset=preset)


def test_a_proxy_on_this_machine_is_believed_by_uvicorn_at_a_listener_for_both_families(
    tmp_path: Path,
) -> None:
    def argv(address: str, *more: str, **env: str) -> tuple[str, ...]:
        text = f"""
[listen]
http = "{address}"
[service.web]
command = {json.dumps([f"{Path(PYTHON).parent}/uvicorn", *more, "app:app"])}
cwd = "{tmp_path}"
"""
        found = config.parse(text.encode(), file="shop.toml")
        return resolve.prepare(found.services[0], found.listens(), env).spec().argv

    allowed = ("--forwarded-allow-ips", "127.0.0.1,::1,::ffff:127.0.0.1")
    assert set(allowed) <= set(argv("tcp://[::]:0"))
    for found in (
        argv("tcp://[::1]:0"),
        argv("tcp://0.0.0.0:0"),
        argv("tcp://[::]:0", "--forwarded-allow-ips=*"),
        argv("tcp://[::]:0", FORWARDED_ALLOW_IPS="192.0.2.1"),
        argv("tcp://[::]:0", UVICORN_FORWARDED_ALLOW_IPS="192.0.2.1"),
    ):
        assert allowed[1] not in found


def test_a_server_is_recognised_behind_the_wrappers_that_are_in_use() -> None:
    for command in (
        ("uvicorn",),
        ("/opt/venv/bin/uvicorn",),
        ("python3.12", "-m", "uvicorn"),
        ("/usr/bin/python", "-X", "dev", "-u", "-m", "uvicorn"),
        ("env", "A=1", "B=2", "uvicorn"),
        ("/usr/bin/env", "python", "-m", "uvicorn"),
        ("uv", "run", "uvicorn"),
        ("uv", "run", "--", "python", "-m", "uvicorn"),
    ):
        call = recognise((*command, "app:app"))
        assert call is not None
        assert (call.name, call.launch.argv(["--x"])) == ("uvicorn", (*command, "--x", "app:app"))


@pytest.mark.parametrize("launcher", ["opentelemetry-instrument", "newrelic-admin run-program"])
def test_a_preset_that_is_named_puts_its_flags_behind_the_program_and_not_the_launcher(
    launcher: str,
) -> None:
    for program in ("uvicorn", "./own-uvicorn"):
        found = fit(*launcher.split(), program, "app:app", preset="uvicorn")
        assert found.argv[: len(launcher.split()) + 2] == (*launcher.split(), program, "--fd")
        assert found.argv[-1] == "app:app"
    frozen = fit("uv", "run", "--frozen", "gunicorn", "a:a", preset="gunicorn").argv
    assert frozen[:5] == ("uv", "run", "--frozen", "gunicorn", "--bind")


@pytest.mark.parametrize("launcher", ["", "tini --", "ddtrace-run", "sh -c"])
@pytest.mark.parametrize("program", ["unicorn", "php-fpm8.2", "nginx"])
def test_what_term_would_end_with_its_requests_is_stopped_by_quit(
    program: str, launcher: str
) -> None:
    found = fit(*launcher.split(), program)
    assert (found.server.stop_signal, found.warnings) == (signal.SIGQUIT, ())


def test_each_server_is_told_of_its_sockets_as_it_expects_it() -> None:
    both = ("http", "admin")
    assert fit("nginx", listen=both).env == (("NGINX", "3;4;"),)
    assert fit("php-fpm", "-F", listen=both).env == (("FPM_SOCKETS", "127.0.0.1:80=3,/run/a=4"),)
    assert fit("bundle", "exec", "puma", "-t", "5").argv == (
        "bundle", "exec", "puma", "--bind-to-activated-sockets", "only", "-t", "5",
    )  # fmt: skip
    assert fit("daphne", "a:b").argv == ("daphne", "--fd", "{http}", "a:b")


def test_without_listeners_no_server_is_told_of_any() -> None:
    for server in servers.KNOWN:
        found = fit(server, "x", listen=())
        assert "{" not in " ".join(found.argv)
        assert set(dict(found.env)) <= {"WEB_CONCURRENCY"}
        assert found.warnings == ()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("daphne a:b", r"daphne: told to stop, it loses each connection.*; serve"),
        ("waitress-serve a:b", r"waitress cannot be given a socket by its command line: .*; start"),
        ("npm start", r"npm: it closes the descriptors .*; call the program"),
        ("npx server", r"npx: it closes the descriptors .*; call the program"),
        ("hatch run uvicorn a:b", r"hatch: it closes the descriptors .*; call the program"),
        ("setsid uvicorn a:b", r"setsid: it ends at once .*; leave it out"),
        (
            "uvicorn --fd 0 a:b",
            r"uvicorn --fd 0: no listener has that descriptor.*; write \{http\}",
        ),
    ],
)
def test_what_cannot_serve_on_a_socket_that_it_is_given_is_named(command: str, words: str) -> None:
    (warning,) = fit(*command.split()).warnings
    assert re.fullmatch(rf"{words}.*", warning)


def test_the_version_of_another_environment_is_not_taken_for_that_of_the_launchers(
    tmp_path: Path,
) -> None:
    assert "--no-control-socket" in fit("gunicorn", "a:a").argv
    for launcher in ("poetry run", "uv run", "uvx", "tini -- uvx --from gunicorn"):
        found = fit(*launcher.split(), "gunicorn", "a:a", cwd=str(tmp_path))
        assert "--no-control-socket" not in found.argv
    (tmp_path / ".venv/lib/python3.12/site-packages/gunicorn-27.0.1.dist-info").mkdir(parents=True)
    for launcher in ("poetry run", "uv run --frozen"):
        found = fit(*launcher.split(), "gunicorn", "a:a", cwd=str(tmp_path))
        assert "--no-control-socket" in found.argv
    for launcher in ("uvx", "uv run --with x", "uv tool run", "poetry -C x run", "nice uvx"):
        found = fit(*launcher.split(), "gunicorn", "a:a", cwd=str(tmp_path))
        assert "--no-control-socket" not in found.argv


def test_granian_of_no_project_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match='"-m", "granian"'):
        fit("uvx", "granian", "a:a")


def test_a_program_that_is_not_known_is_left_as_it_is() -> None:
    for command in (
        ("nodemon", "uvicorn"),
        ("python", "uvicorn.py"),
        ("go", "vet"),
        ("python", "-m"),
        ("env",),
    ):
        assert fit(*command).argv == command
        assert fit(*command).server.name == "none"


def test_what_the_user_wrote_comes_after_what_the_preset_adds() -> None:
    argv = fit("hypercorn", "app:app", "--access-logfile", "-").argv
    assert argv[0] == "hypercorn"
    assert argv[-3:] == ("app:app", "--access-logfile", "-")
    assert len(argv) > 4


def test_an_option_that_is_given_is_not_added() -> None:
    for given in ("--timeout-graceful-shutdown=5", "--workers=1"):
        option = given.partition("=")[0]
        argv = fit("uvicorn", given, "app:app").argv
        assert [text.partition("=")[0] for text in argv].count(option) == 1
    assert "--workers" not in fit("hypercorn", "-w1", "app:app").argv
    assert "--timeout-graceful-shutdown" not in (
        fit("uvicorn", "app:app", UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN="5").argv
    )


def test_a_command_that_names_its_listener_gets_no_second_one() -> None:
    assert fit("uvicorn", "--fd", "{http}", "app:app").argv.count("--fd") == 1
    assert "--bind" not in fit("hypercorn", "-b", "fd://{http}", "app:app").argv
    assert "--protocol" not in fit("uwsgi", "--http-socket", "fd://{http}").argv


def test_a_server_that_can_serve_one_listener_refuses_two() -> None:
    for server in ("uvicorn", "granian"):
        with pytest.raises(ConfigError, match=rf"service\.web\.listen .*{server} serves one"):
            fit(server, "app:app", listen=("http", "admin"))


def test_gunicorns_config_file_is_not_overruled(tmp_path: Path) -> None:
    assert "--graceful-timeout" in fit("gunicorn", "app:app", cwd=str(tmp_path)).argv
    assert "--graceful-timeout" not in fit("gunicorn", "-c", "conf.py", "app:app").argv
    env = {"GUNICORN_CMD_ARGS": "--graceful-timeout=3"}
    assert "--graceful-timeout" not in fit("gunicorn", "app:app", **env).argv
    (tmp_path / "gunicorn.conf.py").touch()
    assert "--graceful-timeout" not in fit("gunicorn", "app:app", cwd=str(tmp_path)).argv


@pytest.mark.parametrize(
    ("installed", "added"),
    [
        ("gunicorn-25.0.3.dist-info", False),
        ("gunicorn-25.1.0.dist-info", True),
        ("gunicorn-27.0.1-py3.egg-info", True),
        ("gunicorn_color-27.0.1.dist-info", False),
    ],
)
def test_an_option_of_new_gunicorns_is_given_only_to_them(
    installed: str, added: bool, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "gunicorn"
    script.write_text(f"#!{tmp_path}/bin/python\n")
    for program in (script, tmp_path / "bin" / "python"):
        program.touch()
        program.chmod(0o755)
    (tmp_path / f"lib/python3.12/site-packages/{installed}").mkdir(parents=True)
    assert ("--no-control-socket" in fit(str(script), "app:app").argv) is added


def test_behind_a_process_that_stays_listeners_are_named_since_their_pid_is_not_known() -> None:
    assert "fd://{http}" in fit("uv", "run", "gunicorn", "app:app").argv
    assert "fd://{http}" in fit("uv", "run", "uwsgi", "-w", "app").argv
    granian = fit("uv", "run", "granian", "app:app").argv
    assert granian[:4] == ("uv", "run", "python", additions.LAUNCHER)


@pytest.mark.parametrize(
    ("folder", "first_lines"),
    [
        ("bin", "#!{python}\n"),
        ("a venv", "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"),
        ("long/bin", "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n"),
    ],
)
def test_granian_runs_in_the_python_of_its_own_script(
    folder: str, first_lines: str, tmp_path: Path
) -> None:
    python = f"{tmp_path}/{folder}/python3"
    script = tmp_path / "granian"
    script.write_text(first_lines.format(python=python) + "import granian\n")
    script.chmod(0o755)
    assert fit(str(script), "app:app").argv[:4] == (python, additions.LAUNCHER, "--fd", "{http}")


def test_granian_whose_python_is_not_clear_is_refused_with_a_way_out(tmp_path: Path) -> None:
    script = tmp_path / "granian"
    script.write_bytes(b"\x7fELF")
    script.chmod(0o755)
    with pytest.raises(ConfigError, match='"-m", "granian"'):
        fit(str(script), "app:app")


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("uvicorn --reload app:app", "--reload"),
        ("uvicorn --workers 2 app:app", "--workers"),
        ("hypercorn -w 2 app:app", "--workers"),
        ("gunicorn --reuse-port app:app", "--reuse-port"),
        ("gunicorn --bind 0.0.0.0:80 app:app", "--bind"),
        ("gunicorn -b fd://{http} app:app", "--bind fd://"),
        ("uwsgi --shutdown-sockets -w app", "--shutdown-sockets"),
        ("uwsgi --http :80 -w app", "--http"),
        ("granian --reload app:app", "--reload"),
    ],
)
def test_a_flag_that_loses_requests_is_warned_of(command: str, flag: str) -> None:
    (warning,) = fit(*command.split()).warnings
    assert warning.startswith(f"{command.split(maxsplit=1)[0]} ")
    assert flag in warning


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("fastapi run app.py", "it starts uvicorn"),
        ("uv run fastapi dev", "it starts uvicorn"),
        ("python manage.py runserver 0.0.0.0:8000", "server for development"),
        ("python -m django runserver", "server for development"),
        ("django-admin runserver", "server for development"),
        ("honcho start", "all that a Procfile has"),
    ],
)
def test_what_opens_its_port_whatever_it_is_given_is_refused_with_what_to_do(
    command: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        fit(*command.split())
    assert "app = " in caught.value.do or "init --from" in caught.value.do
    assert fit(*command.split(), listen=()).argv == tuple(command.split())


def test_another_command_of_the_same_program_is_not_refused() -> None:
    for command in ("python manage.py migrate", "fastapi login", "go build"):
        assert fit(*command.split()).server.name == "none"


def test_a_program_that_says_in_its_source_where_it_serves_is_believed() -> None:
    for command in ("node server.js", "go run ."):
        found = fit(*command.split())
        assert (found.argv, found.warnings, found.env) == (tuple(command.split()), (), ())
    assert fit("bin/shop", preset="go").server.broken_exits == {2}
    own = fit("python", "serve.py", preset="waitress")
    assert (own.server.stop_signal, own.warnings) == (signal.SIGINT, ())


@pytest.mark.parametrize("server", SERVERS)
def test_a_plain_command_is_not_warned_of(server: str) -> None:
    assert fit(server, "app:app").warnings == ()

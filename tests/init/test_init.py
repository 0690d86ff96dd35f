"""What a project looks like decides what is run, and the file that is written is a config."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.config import config
from sockmgr.config.config import ServiceConfig
from sockmgr.init import declared, line
from sockmgr.init.draft import draft, plain
from sockmgr.init.facts import Guess, Project
from sockmgr.init.guess import LOOKED_FOR, guess
from tests.init.sources import FASTAPI, FLASK

ASGI_PY = "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()"
WSGI_PY = ASGI_PY.replace("asgi", "wsgi")
DJANGO = {"manage.py": "", "site/asgi.py": ASGI_PY, "site/wsgi.py": WSGI_PY}
FD_SERVER = "http.createServer(f).listen({ fd: 3 });"
PORT_SERVER = "const port = process.env.PORT || 3000;\napp.listen(port);"
SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian", "uwsgi", "node", "npm")


def package(**keys: object) -> str:
    return json.dumps({"name": "@me/shop", **keys})


def guessed(files: dict[str, str], *programs: str) -> Guess:
    found, _ = guess(Project(directory="here", files=files, programs=frozenset(programs)))
    assert found is not None
    return found


def written(found: Guess | None, name: str = "shop") -> ServiceConfig:
    """Return the service of the file that is written for a guess."""
    (service,) = config.parse(draft(found, name).encode(), file="sockmgr.toml").services
    return service


# --- Python --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "programs", "command"),
    [
        ({"main.py": FASTAPI}, (), "uvicorn --fd {http} main:app"),
        ({"main.py": FASTAPI}, ("hypercorn",), "hypercorn --bind fd://{http} main:app"),
        ({"main.py": FASTAPI}, ("granian", "gunicorn"), "granian --interface asgi main:app"),
        ({"main.py": FASTAPI, "requirements.txt": "hypercorn==0.18\n"}, ("uvicorn",),
         "hypercorn --bind fd://{http} main:app"),
        ({"main.py": FASTAPI, "pyproject.toml": '[project]\ndependencies = ["granian>=2"]'},
         ("granian", "uvicorn"), "granian --interface asgi main:app"),
        ({"main.py": FASTAPI}, (".venv/bin/uvicorn",), ".venv/bin/uvicorn --fd {http} main:app"),
        ({"main.py": FASTAPI, "uv.lock": "", "requirements.txt": "uvicorn"}, ("uv",),
         "uv run uvicorn --fd {http} main:app"),
        ({"api/main.py": FASTAPI, "api/requirements.txt": "uvicorn[standard]"},
         (".venv/bin/uvicorn",), "../.venv/bin/uvicorn --fd {http} main:app"),
        ({"app.py": FLASK}, (), "gunicorn -k gthread --threads 8 app:app"),
        ({"app.py": FLASK, "requirements.txt": "pyuwsgi"}, (), "uwsgi -w app:app"),
        ({"app.py": FLASK, "requirements.txt": "granian"}, (),
         "granian --interface wsgi app:app"),
        ({"shop/__init__.py": "from flask import Flask\ndef create_app():\n return Flask('')"}, (),
         "gunicorn -k gthread --threads 8 shop:create_app()"),
        ({"m.py": "import quart\ndef create_app():\n return quart.Quart('')"}, (),
         "uvicorn --fd {http} --factory m:create_app"),
        ({"m.py": "import quart\ndef create_app():\n return quart.Quart('')"}, ("hypercorn",),
         "hypercorn --bind fd://{http} m:create_app()"),
        (DJANGO, (), "gunicorn -k gthread --threads 8 site.wsgi:application"),
        (DJANGO, ("uvicorn", "gunicorn"), "gunicorn -k gthread --threads 8 site.wsgi:application"),
        ({**DJANGO, "requirements.txt": "Uvicorn"}, ("uvicorn", "gunicorn"),
         "uvicorn --fd {http} site.asgi:application"),
    ],
)  # fmt: skip
def test_an_application_is_served_by_what_is_declared_or_installed(
    files: dict[str, str], programs: tuple[str, ...], command: str
) -> None:
    found = guessed(files, *programs)
    assert " ".join(found.command) == command
    service = written(found)
    assert service.command == found.command
    assert (service.listen, service.workers, service.rollout.exclusive) == (("http",), 2, False)


def test_a_server_that_is_not_installed_is_to_be_installed() -> None:
    assert guessed({"main.py": FASTAPI}).todo == (
        "uvicorn is not installed here: pip install uvicorn",
    )
    assert guessed({"main.py": FASTAPI}, "uvicorn").todo == ()


def test_a_source_directory_is_put_where_python_looks() -> None:
    service = written(guessed({"src/shop/main.py": FASTAPI, "pyproject.toml": ""}))
    assert service.env == (("PYTHONPATH", "src"),)
    assert service.cwd == "."
    service = written(guessed({"back/src/shop/main.py": FASTAPI, "back/pyproject.toml": ""}))
    assert (service.cwd, service.env) == ("back", (("PYTHONPATH", "src"),))


def test_what_else_was_found_is_told_and_not_taken() -> None:
    files = {"main.py": FASTAPI, "admin.py": FLASK, "package.json": package(), "server.js": "s"}
    files["server.js"] = FD_SERVER
    found = guessed(files)
    assert found.found == "FastAPI `app` in main.py"
    assert found.others == ("Flask `app` in admin.py", "a Node server in server.js")
    assert "# Also found: Flask `app` in admin.py\n" in draft(found, "shop")


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("requirements.txt", "# x\nuvicorn[standard]>=1 ; python_version > '3'\n-r other\n\nA_b",
         {"uvicorn", "a-b"}),
        ("pyproject.toml", '[project]\ndependencies=["a", "fastapi[standard]"]\n'
         '[project.optional-dependencies]\nx=["b"]\n[dependency-groups]\ndev=["c", {x="y"}]',
         {"a", "fastapi", "uvicorn", "b", "c"}),
        ("pyproject.toml", '[tool.poetry.dependencies]\nPython="3"\na="1"\n'
         "[tool.poetry.group.x.dependencies]\nb='1'", {"python", "a", "b"}),
        ("Pipfile", '[packages]\na="*"\n[dev-packages]\nb="*"', {"a", "b"}),
        ("pyproject.toml", "broken [", set()),
        ("pyproject.toml", "project = 1\ndependency-groups = 2", set()),
    ],
)  # fmt: skip
def test_dependencies_are_read_from_whatever_declares_them(
    file: str, text: str, names: set[str]
) -> None:
    assert set(declared.dependencies({file: text})) == names


# --- Procfile ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "command", "workers", "env"),
    [
        ("gunicorn app:app --bind 0.0.0.0:$PORT --workers 3 --log-file -",
         "gunicorn app:app --log-file -", 3, {}),
        ("gunicorn -w4 -b0.0.0.0:$PORT -k gthread app:app", "gunicorn -k gthread app:app", 4, {}),
        ("exec gunicorn --bind=:$PORT --reload app:app", "gunicorn app:app", 2, {}),
        ("poetry run gunicorn 'shop:create_app()'", "gunicorn shop:create_app()", 2, {}),
        ("python -m gunicorn app:app", "python -m gunicorn app:app", 2, {}),
        ("uvicorn a:app --host 0.0.0.0 --port ${PORT:-5000}", "uvicorn --fd {http} a:app", 2, {}),
        ("uv run uvicorn a:app --port=$PORT", "uv run uvicorn --fd {http} a:app", 2, {}),
        ("DEBUG=0 hypercorn -b 0.0.0.0:$PORT a:app", "hypercorn --bind fd://{http} a:app", 2,
         {"DEBUG": "0"}),
        ("granian --interface asgi --port $PORT a:app", "granian --interface asgi a:app", 2, {}),
        ("uwsgi --http :$PORT --master -p 2 -w a:app", "uwsgi --master -w a:app", 2, {}),
        ("gunicorn -w ${WEB_CONCURRENCY:-3} a:app", "gunicorn a:app", 3, {}),
        ("gunicorn -w $N ${OPTIONS} a:app", 'sh -c exec gunicorn ${{OPTIONS}} a:app', 2, {}),
        ("gunicorn --name=$A'b c\"' a:app", "sh -c exec gunicorn --name=$A'b c\"' a:app", 2, {}),
        ("gunicorn --env x={y} -b :${PORT} a:app", "gunicorn --env x={{y}} a:app", 2, {}),
        ("gunicorn $OPTIONS a:app -b :$PORT", 'sh -c exec gunicorn $OPTIONS a:app', 2, {}),
    ],
)  # fmt: skip
def test_the_web_line_of_a_known_server_gets_the_socket_instead_of_the_port(
    text: str, command: str, workers: int, env: dict[str, str]
) -> None:
    found = guessed({"Procfile": f"worker: x\nweb: {text}\n"}, *SERVERS)
    assert " ".join(found.command) == command
    assert (found.workers, dict(found.env), found.takes_socket) == (workers, env, True)
    assert written(found).command == found.command


@pytest.mark.parametrize(
    ("text", "command", "keys"),
    [
        ("cd backend && uvicorn app.main:app --port $PORT", "uvicorn --fd {http} app.main:app",
         {"cwd": "backend"}),
        ("(cd a/b && cd ../c; exec uvicorn m:app)", "uvicorn --fd {http} m:app", {"cwd": "a/c"}),
        ('bash -c "cd api && exec uvicorn main:app --port $PORT"', "uvicorn --fd {http} main:app",
         {"cwd": "api"}),
        ("gunicorn --workers=$(nproc) a:b", "gunicorn a:b", {}),
        ("gunicorn -w $((2*$(nproc)+1)) a:b", "gunicorn a:b", {}),
        ("gunicorn -w `nproc` a:b", "gunicorn a:b", {}),
        ("gunicorn --name=$(hostname) a:b", "sh -c exec gunicorn --name=$(hostname) a:b", {}),
        ("gunicorn a:b --timeout 120 2>&1 | tee log", "gunicorn a:b --timeout 120", {}),
        ("gunicorn a:b >>'/var/log/a b' 2>&1", "sh -c exec gunicorn a:b >>'/var/log/a b'", {}),
        ("PYTHONPATH=$PWD/backend uvicorn m:app",
         "sh -c PYTHONPATH=$PWD/backend exec uvicorn --fd {http} m:app", {}),
        ("PYTHONPATH=src A='b c' uvicorn m:app", "uvicorn --fd {http} m:app",
         {"env": (("PYTHONPATH", "src"), ("A", "b c"))}),
        ("export A=1 B=2 && uvicorn m:app", "uvicorn --fd {http} m:app",
         {"env": (("A", "1"), ("B", "2"))}),
        ("source venv/bin/activate && cd x && gunicorn a:b",
         "sh -c . venv/bin/activate && cd x && exec gunicorn a:b", {}),
        ("gunicorn a:b --pid /tmp/g.pid -D", "gunicorn a:b", {}),
        ("gunicorn a:b # as in production", "gunicorn a:b", {}),
        ("gunicorn 'a:b(\"#x\")'", 'gunicorn a:b("#x")', {}),
        ("uv run --frozen gunicorn a:b", "uv run --frozen gunicorn a:b", {}),
        ("newrelic-admin run-program gunicorn -b :$PORT a:b",
         "newrelic-admin run-program gunicorn a:b", {"address": "tcp://0.0.0.0:8000"}),
        ("ddtrace-run gunicorn -w 3 a:b", "ddtrace-run gunicorn a:b", {"workers": 3}),
        ("opentelemetry-instrument uvicorn m:app --port $PORT",
         "opentelemetry-instrument uvicorn --fd {http} m:app", {}),
        ("daphne -b 0.0.0.0 -p $PORT m:app", "daphne --fd {http} m:app",
         {"address": "tcp://0.0.0.0:8000"}),
        ("bundle exec puma -C config/puma.rb -p ${PORT:-3000} -t 5:5",
         "bundle exec puma -C config/puma.rb -t 5:5", {"port": 3000}),
        ("uvicorn m:app --host 0.0.0.0 --port $PORT", "uvicorn --fd {http} m:app",
         {"address": "tcp://0.0.0.0:8000"}),
        ("uvicorn m:app --host=:: --port 81", "uvicorn --fd {http} m:app",
         {"address": "tcp://[::]:81"}),
        ("gunicorn -b [::]:9000 a:b", "gunicorn a:b", {"address": "tcp://[::]:9000"}),
        ("gunicorn -b unix:/run/shop/x.sock a:b", "gunicorn a:b",
         {"address": "unix:///run/shop/x.sock"}),
        ("gunicorn -b $HOST:$PORT a:b", "gunicorn a:b", {"address": ""}),
        ("fastapi run m.py --port $PORT", "uvicorn --fd {http} m:app", {}),
        ("hatch run gunicorn a:b", "gunicorn a:b", {}),
    ],
)  # fmt: skip
def test_a_web_line_as_it_is_in_the_wild_is_carried_over(
    text: str, command: str, keys: dict[str, object]
) -> None:
    found = guessed({"Procfile": f"web: {text}\n", "m.py": FASTAPI}, *SERVERS)
    assert " ".join(found.command) == command
    assert found.takes_socket
    assert {key: getattr(found, key) for key in keys} == keys
    service = written(found)
    assert service.command == found.command
    assert f'http = "{found.listens_on}"\n' in draft(found, "shop")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gunicorn -w $(nproc) a:b", "how many processes $(nproc) is cannot be told here"),
        ("gunicorn a:b --pid /tmp/x --bind :$PORT", "--pid /tmp/x: left out, that is for sockmgr"),
        ("gunicorn a:b | tee log", "its output went to `tee log`: left out"),
        ("celery worker & gunicorn a:b", "give `celery worker` a service"),
        ("./migrate || true; gunicorn a:b", "run `./migrate || true` before, once a deploy"),
        ("waitress-serve --port=$PORT a:b", "waitress-serve cannot be given a socket"),
    ],
)
def test_what_is_not_carried_over_is_said(text: str, said: str) -> None:
    found = guessed({"Procfile": f"web: {text}\n"}, *SERVERS)
    assert any(said in told for told in (*found.why, *found.todo))


@pytest.mark.parametrize(
    "text", ["python manage.py runserver 0.0.0.0:$PORT", "python -m django runserver"]
)
def test_djangos_server_for_development_is_replaced_with_the_reason(text: str) -> None:
    found = guessed({"Procfile": f"web: {text}", **DJANGO}, *SERVERS)
    assert " ".join(found.command) == "gunicorn -k gthread --threads 8 site.wsgi:application"
    assert found.takes_socket
    assert "server for development" in found.why[0]
    alone = guessed({"Procfile": f"web: {text}"}, *SERVERS)
    assert (alone.takes_socket, "server for development" in alone.why[0]) == (False, True)


def test_every_other_line_of_a_procfile_is_named() -> None:
    procfile = (
        "release: ./manage.py migrate\nweb: gunicorn a:b\n"
        "worker: celery -A shop worker -c $N\nbeat : cd jobs && A=1 celery beat # x\nweb: old\n"
        "odd: a | b\n"
    )
    found = guessed({"srv/Procfile": procfile}, *SERVERS, "srv/.venv/bin/celery")
    assert any("run `./manage.py migrate` (`release` in" in todo for todo in found.todo)
    assert "a second `web` in srv/Procfile, which is not run: old" in found.others
    assert [(one.name, " ".join(one.command), one.cwd) for one in found.beside] == [
        ("worker", "sh -c exec celery -A shop worker -c $N", "srv"),
        ("beat", "celery beat", "srv/jobs"),
        ("odd", "sh -c a | b", "srv"),
    ]
    text = draft(found, "shop")
    service = text[text.index("# [service.beat]") :].partition("\n\n")[0]
    lines = [one.removeprefix("# ") for one in service.splitlines()]
    told = config.parse("\n".join(lines).encode(), file="x").services[0]
    assert (told.name, told.command, told.env) == ("beat", ("celery", "beat"), (("A", "1"),))


def test_a_procfile_for_development_is_read_if_there_is_no_other() -> None:
    found = guessed({"Procfile.dev": "web: gunicorn x:y", "main.py": FASTAPI})
    assert (found.command, found.others) == (("gunicorn", "x:y"), ("FastAPI `app` in main.py",))
    both = {"Procfile.dev": "web: gunicorn x:y", "Procfile": "web: gunicorn a:b"}
    assert guessed(both).command == ("gunicorn", "a:b")


def test_a_shell_is_told_where_a_server_is_that_is_not_in_its_path() -> None:
    files = {"Procfile": "web: gunicorn $OPTIONS a:app"}
    found = guessed(files, "gunicorn", "/opt/venv/bin/gunicorn")
    assert found.command == ("sh", "-c", "exec /opt/venv/bin/gunicorn $OPTIONS a:app")
    assert guessed(
        {"Procfile": "web: gunicorn a:app"}, "gunicorn", "/opt/venv/bin/gunicorn"
    ).command == (
        "gunicorn",
        "a:app",
    )


def test_what_runs_before_the_server_is_to_be_done_once() -> None:
    found = guessed({"Procfile": "web: ./manage.py migrate && gunicorn a:b --bind :$PORT"})
    assert found.command == ("gunicorn", "a:b")
    assert "run `./manage.py migrate` before, once a deploy" in found.todo


def test_a_default_port_in_the_line_is_the_port_that_is_listened_on() -> None:
    found = guessed({"Procfile": "web: uvicorn a:app --port ${PORT:-5000}"}, "uvicorn")
    assert 'http = "tcp://127.0.0.1:5000"\n' in draft(found, "shop")


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("bin/server --port $PORT", "bin/server --port 8000"),
        ("bin/server --port ${PORT:-99}", "bin/server --port 99"),
        ("bin/server --port ${PORT}", "bin/server --port 8000"),
        ("bin/server $OPTIONS", "sh -c exec bin/server $OPTIONS"),
        ("bin/server | logger", "sh -c bin/server | logger"),
        ("A=$B bin/server", "sh -c A=$B exec bin/server"),
        ("a || b", "sh -c a || b"),
        ("if x; then y; fi", "sh -c if x; then y; fi"),
    ],
)
def test_an_unknown_program_is_kept_runs_alone_and_is_told_what_to_change(
    text: str, command: str
) -> None:
    found = guessed({"Procfile": f"web: {text}"})
    assert " ".join(found.command) == command
    assert "LISTEN_FDS" in found.todo[0]
    service = written(found)
    assert (service.listen, service.workers, service.rollout.exclusive) == ((), 1, True)
    assert dict(service.env)["PORT"] == str(found.port)


def test_a_procfile_goes_before_what_is_inferred_and_names_it() -> None:
    files = {"Procfile": "web: bin/server", "main.py": FASTAPI}
    assert guessed(files).others == ("FastAPI `app` in main.py",)
    for text in ("worker: x", "web:", "web: '", "# web: x", "web: a && "):
        assert guessed({**files, "Procfile": text}).found == "FastAPI `app` in main.py"


# --- Node ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"package.json": package(scripts={"start": "node server.js"})},
        {"package.json": package(scripts={"start": "node ./server"})},
        {"package.json": package(main="server.js")},
        {"package.json": package()},
        {},
        {"package.json": "broken", "Procfile": "web: node server.js"},
        {
            "package.json": package(scripts={"start": "node server.js"}),
            "Procfile": "web: npm start",
        },
    ],
)
def test_a_node_server_that_takes_a_descriptor_is_reloaded_without_loss(
    files: dict[str, str],
) -> None:
    found = guessed({"server.js": FD_SERVER, **files}, *SERVERS)
    assert found.command[0] == "node"
    assert (found.takes_socket, found.todo) == (True, ())
    assert written(found).listen == ("http",)


@pytest.mark.parametrize(
    ("source", "port", "env"),
    [
        (PORT_SERVER, 8000, {"PORT": "8000"}),
        ("app.listen(4000)", 4000, {}),
        ("const PORT = 4321\napp.listen(PORT)", 4321, {}),
    ],
)
def test_a_node_server_that_opens_its_port_runs_alone_and_is_told_what_to_change(
    source: str, port: int, env: dict[str, str]
) -> None:
    found = guessed({"server.js": source, "package.json": package()}, *SERVERS)
    assert (found.takes_socket, found.port, dict(found.env)) == (False, port, env)
    assert "server.listen({ fd: 3 })" in found.todo[0]
    service = written(found)
    assert (service.listen, service.rollout.exclusive) == ((), True)


@pytest.mark.parametrize(
    ("start", "programs", "command"),
    [
        ("next start -p $PORT", ["node_modules/.bin/next"], "node_modules/.bin/next start -p 8000"),
        ("next start", [], "npm start"),
        ("A=$B node x.js", ["node"], "npm start"),
        ("node build.js && next start", [], "npm start"),
    ],
)
def test_a_start_of_which_nothing_is_known_is_run_as_npm_would(
    start: str, programs: list[str], command: str
) -> None:
    found = guessed({"package.json": package(scripts={"start": start})}, *programs)
    assert " ".join(found.command) == command
    assert not found.takes_socket


def test_a_port_that_a_start_sets_is_the_port_and_is_set_once() -> None:
    start = "PORT=3000 node server.js"
    files = {"package.json": package(scripts={"start": start}), "server.js": PORT_SERVER}
    found = guessed(files, "node")
    assert (found.port, found.env) == (3000, (("PORT", "3000"),))
    assert written(found).env == found.env


def test_a_package_below_is_started_where_it_is() -> None:
    files = {"web/package.json": package(), "web/server.js": FD_SERVER}
    found = guessed(files, "node")
    assert (found.command, found.cwd) == (("node", "server.js"), "web")


# --- Nothing, and anything -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [{}, {"a.py": "x = 1"}, {"package.json": package(scripts={"build": "x"})}, {"index.js": "1"}],
)
def test_nothing_is_guessed_of_nothing_and_the_file_says_what_to_write(
    files: dict[str, str],
) -> None:
    assert guess(Project(directory="here", files=files)) == (None, LOOKED_FOR)
    assert written(None).command == ("PROGRAM", "ARGUMENT")


def test_what_was_not_found_is_told() -> None:
    _, missing = guess(Project(directory="here", files={"main.py": FASTAPI}))
    assert missing == (LOOKED_FOR[0], LOOKED_FOR[2])


@pytest.mark.parametrize(
    ("files", "directory", "name"),
    [
        ({"pyproject.toml": '[project]\nname = "my shop"'}, "x", "my-shop"),
        ({"pyproject.toml": '[tool.poetry]\nname = "shop"'}, "x", "shop"),
        ({"package.json": package()}, "x", "shop"),
        ({"package.json": package(name=1)}, "_x_", "x"),
        ({}, "shop.example", "shop.example"),
        ({}, "äöü", "sockmgr"),
        ({}, "", "sockmgr"),
    ],
)
def test_a_manager_is_named_after_the_project_or_its_directory(
    files: dict[str, str], directory: str, name: str
) -> None:
    assert declared.name(files, directory) == name
    config.parse(draft(None, name).encode(), file="x")


def test_what_no_comment_and_no_terminal_should_get_is_left_out() -> None:
    start = "node \x1b[31mserver.js\n\x07"
    found = guessed({"package.json": package(scripts={"start": start})})
    text = draft(found, "shop")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert plain("a\x1b\nb") == "a  b"


@pytest.mark.parametrize(
    "text",
    [
        "uvicorn a:app --port ${PORT:-" + "9" * 5000 + "}",
        "uvicorn a:app --host a --port " + "9" * 5000,
        "gunicorn a:app -b 0.0.0.0:65536",
        "gunicorn a:app -b [1:2]:80",
        "gunicorn a:app -b unix:/run/",
        "gunicorn a:app -b unix:/" + "\u00e4" * 60,
        "uvicorn a:app --host :.1",
        "node server.js ${PORT:-99999}",
        "PORT=99999 node server.js",
        "gunicorn a:app \0",
    ],
)
@pytest.mark.parametrize("kind", ["Procfile", "package.json"])
def test_what_is_no_address_and_no_port_and_a_nul_make_no_config_that_cannot_be_used(
    kind: str, text: str
) -> None:
    said = f"web: {text}" if kind == "Procfile" else package(scripts={"start": text})
    found = guessed({kind: said, "server.js": "app.listen(99999)\n"})
    config.parse(draft(found, "shop").encode(), file="x")


_TEXT = st.text(st.characters(exclude_characters="\0")) | st.sampled_from(
    [
        "x {y} {{y}}",
        "x ${Y} && z ${Y}",
        "gunicorn a:b",
        "A=b node x.js",
        "x && y",
        "uvicorn a:app --port $PORT",
        "web: x | y",
        "\\",
    ]
)


@given(_TEXT)
def test_any_line_is_read_or_refused(text: str) -> None:
    told = line.read(text)
    assert told is None or isinstance(told.argv, tuple)


@given(_TEXT, _TEXT)
def test_whatever_is_found_the_file_is_a_config_that_runs_what_was_guessed(
    procfile: str, start: str
) -> None:
    files = {
        "Procfile": f"web: {procfile}", "package.json": package(scripts={"start": start}),
        "server.js": PORT_SERVER,
    }  # fmt: skip
    found, _ = guess(Project(directory="here", files=files))
    if found is None:
        return
    service = written(found)
    assert service.command == found.command
    assert service.rollout.exclusive is not found.takes_socket

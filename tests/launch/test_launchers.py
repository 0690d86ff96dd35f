"""Whatever stands before a program, the program is found, and what of LISTEN_FDS reaches it."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.launch import launchers, shell
from sockmgr.launch.launchers import Way

BECOME = (
    "", "env A=1 B=2", "/usr/bin/env -u FOO", "env -C /srv A=1", "nice", "nice -n 5", "nice -10",
    "nohup", "stdbuf -oL -e 0", "ionice -c 2 -n 0", "taskset 3", "gosu app",
    "python3.12 -X dev -u -m",
    "/opt/venv/bin/python", "python -Im debugpy --listen 127.0.0.1:5678 --wait-for-client -m",
    "python -m coverage run --source shop -m", "poetry run", "poetry -C /srv run", "pipenv run",
    "bundle exec", "opentelemetry-instrument", "ddtrace-run --debug", "newrelic-admin run-program",
    "opentelemetry-instrument --traces_exporter console --service_name=x", "nice nohup env A=1",
    "python -m newrelic.admin run-program", "uv run python -m sockmgr.exec --chdir=/ --",
)  # fmt: skip
CHILDREN = (
    "uv run", "uv run --frozen --with rich --", "uv --directory /srv run -m", "uvx --from x",
    "uv tool run", "uv run python -X dev -m", "pdm run -p /srv", "tini --", "tini -s -g --",
    "dumb-init", "dumb-init --rewrite 15:3", "time -f %e", "timeout -k 5 3600", "setsid -w",
    "uv run python -m sockmgr.exec --keep-listen-pid", "tini -- nice -n 5 ddtrace-run",
)  # fmt: skip


def read(command: str) -> launchers.CommandLine:
    return launchers.read(shlex.split(command))


@pytest.mark.parametrize("launcher", [*BECOME, *CHILDREN, "hatch run", "npx -y", "setsid"])
def test_arguments_are_put_behind_the_program_whatever_stands_before_it(launcher: str) -> None:
    found = read(f"{launcher} uvicorn --port 1 app:app")
    assert (found.name, found.args) == ("uvicorn", ("--port", "1", "app:app"))
    assert shlex.join(found.argv(["--new"])) == (
        f"{launcher} uvicorn --new --port 1 app:app".lstrip()
    )


@pytest.mark.parametrize("launcher", BECOME)
def test_a_program_that_its_launcher_becomes_has_the_pid_that_was_started(launcher: str) -> None:
    assert read(f"{launcher} uvicorn x").passes_listen_fds


@pytest.mark.parametrize("launcher", CHILDREN)
def test_a_program_that_is_a_child_of_its_launcher_has_another_pid(launcher: str) -> None:
    found = read(f"{launcher} uvicorn x")
    assert (found.way, found.passes_listen_fds) == (Way.CHILD, False)


@pytest.mark.parametrize("options", ["-i", "-", "-u LISTEN_FDS", "--unset=LISTEN_PID"])
def test_an_environment_that_is_dropped_tells_of_no_listeners(options: str) -> None:
    assert not read(f"env {options} A=1 gunicorn x").passes_listen_fds


def test_a_launcher_that_closes_descriptors_or_leaves_is_known_by_name() -> None:
    assert [
        (found.way, found.by)
        for found in map(read, ("hatch run x", "npx x", "setsid x", "nice npm start"))
    ] == [(Way.CLOSES, "hatch"), (Way.CLOSES, "npx"), (Way.LEAVES, "setsid"), (Way.CLOSES, "npm")]


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("uvx uvicorn@0.34 x", "uvicorn"),
        ("hatch run prod:uvicorn x", "uvicorn"),
        ("/srv/.venv/bin/uvicorn x", "uvicorn"),
        ("env -S 'A=1 uvicorn x' y", "uvicorn"),
        ("python app.py", "app.py"),
        ("python -c pass", "python"),
        ("uv sync", "uv"),
        ("env", "env"),
        ("sh start.sh", "sh"),
    ],
)
def test_a_program_is_called_by_its_bare_name(command: str, program: str) -> None:
    assert read(command).name == program


@pytest.mark.parametrize(
    ("text", "with_flag"),
    [
        ("uvicorn a:b", "exec uvicorn --fd {http} a:b"),
        ("exec uvicorn a:b >>log 2>&1 # x", "exec uvicorn --fd {http} a:b >>log 2>&1"),
        ("cd api && A=$B exec python -m uvicorn a:b", None),
        ("cd api && A=$B uv run uvicorn \"$X\" 'a b'", None),
        ("test -f x || exit 1; exec nice uvicorn a:b;", None),
    ],
)
def test_the_last_command_of_a_shell_is_seen_and_becomes_the_process(
    text: str, with_flag: str | None
) -> None:
    found = launchers.read(("tini", "--", "sh", "-ec", text, "arg0"))
    assert found.name == "uvicorn"
    *before, line, arg0 = found.argv(["--fd", "{http}"])
    assert (*before, arg0) == ("tini", "--", "sh", "-ec", "arg0")
    assert "uvicorn --fd {http} " in line
    assert "exec " in line
    assert with_flag in (None, line)


@pytest.mark.parametrize(
    "text", ["uvicorn a:b; echo bye", "uvicorn a:b | tee log", "(uvicorn a:b)", "uvicorn a:b &",
             "if true; then uvicorn a:b; fi", "uvicorn 'a:b", "uvicorn a:b &&", "exec \"$@\""]
)  # fmt: skip
def test_a_server_that_a_shell_cannot_become_is_not_seen(text: str) -> None:
    found = launchers.read(("sh", "-c", text, "x", "y"))
    assert found.name != "uvicorn"


def test_a_program_of_which_nothing_is_changed_is_called_by_the_same_words() -> None:
    for command in (("sh", "-c", "cd  x&&exec  uvicorn a"), ("nice", "-n", "5", "x"), ("x",)):
        assert launchers.read(command).argv() == command


def test_words_instead_of_a_module_leave_its_flag_out() -> None:
    assert read("python -u -m granian x").argv(instead=["L"]) == ("python", "-u", "L", "x")
    assert read("python -um granian x").argv(instead=["L"]) == ("python", "-u", "L", "x")
    assert read("uv run --module granian x").argv(instead=["L"]) == ("uv", "run", "L", "x")
    assert read("nice granian x").argv(instead=["P", "L"]) == ("nice", "P", "L", "x")


@given(
    st.lists(st.sampled_from([*launchers.KNOWN, "-m", "--", "run", "x", "-S", "sh", "-c", "A=1"]))
)
def test_any_words_are_read_and_given_back(words: list[str]) -> None:
    found = launchers.read(words)
    if words and "-S" not in words and not found.line:
        assert list(found.argv()) == words


@given(st.text(st.sampled_from("a $'\"`(){}\\|&;<>#\n=")))
def test_any_line_is_taken_apart_or_refused(text: str) -> None:
    for command in shell.parse(text) or ():
        assert all(word.raw and word.raw in text for word in command.words)

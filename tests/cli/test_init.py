"""`sockmgr init`: writes a file that `sockmgr check` accepts, and says what it guessed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sockmgr.cli import init
from tests.helpers.command_line import sockmgr
from tests.helpers.terminal import Terminal

APP = "async def app(scope, receive, send):\n    pass\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with an application, which is the current one."""
    found = tmp_path / "shop"
    (found / "src" / "shop").mkdir(parents=True)
    (found / "src" / "shop" / "main.py").write_text(APP)
    (found / "pyproject.toml").write_text('[project]\nname = "My Shop"\ndependencies=["uvicorn"]')
    monkeypatch.chdir(found)
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return found


def test_what_is_written_can_be_used_and_what_was_guessed_is_said(project: Path) -> None:
    result = sockmgr("init")
    assert (result.exit_code, result.stdout) == (0, "sockmgr.toml: written\n")
    assert result.stderr.splitlines() == [
        "found: ASGI application `app` in src/shop/main.py",
        "because: uvicorn, declared in pyproject.toml, and installed",
        "command: uvicorn --fd {http} shop.main:app",
        "guessed: 2 workers, on 127.0.0.1:8000",
        "not found: a `web` line in a Procfile",
        "not found: a Node server, or `start` in a package.json",
        "next: sockmgr check, then sockmgr run",
    ]
    text = (project / "sockmgr.toml").read_text()
    assert 'name = "My-Shop"\n' in text
    assert 'env = { PYTHONPATH = "src" }\n' in text
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 100
    assert sockmgr("check").exit_code == 0


def test_a_server_that_is_beside_sockmgr_is_not_there_for_a_project_with_an_environment_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:/usr/bin:/bin")
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (project / ".venv" / "pyvenv.cfg").touch()
    told = sockmgr("init").stderr.splitlines()
    assert "because: uvicorn, declared in pyproject.toml" in told
    assert "to do: uvicorn is not installed here: pip install uvicorn" in told
    assert sockmgr("check").exit_code == 2


def test_a_file_that_is_there_is_left_alone_unless_force_is_given(project: Path) -> None:
    path = project / "sockmgr.toml"
    path.write_text("mine")
    result = sockmgr("init")
    assert (result.exit_code, path.read_text()) == (1, "mine")
    assert "--force" in result.stderr
    assert sockmgr("init", "--force").exit_code == 0
    assert path.read_text() != "mine"


def test_stdout_gets_the_file_that_would_be_written_and_nothing_else(project: Path) -> None:
    path = project / "sockmgr.toml"
    printed = sockmgr("init", "--stdout")
    assert printed.exit_code == 0
    assert not path.exists()
    sockmgr("init")
    assert printed.stdout == path.read_text()


def test_another_directory_can_be_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    result = sockmgr("init", str(project))
    assert result.exit_code == 0
    assert f"next: sockmgr check -c {project}/sockmgr.toml" in result.stderr
    assert sockmgr("check", "-c", f"{project}/sockmgr.toml").exit_code == 0
    assert sockmgr("init", str(project / "nowhere")).exit_code == 1


def test_nothing_found_is_exit_code_1_and_a_file_to_fill_in(tmp_path: Path) -> None:
    result = sockmgr("init", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "not found: a `web` line in a Procfile",
        "not found: an ASGI or WSGI application in Python sources",
        "not found: a Node server, or `start` in a package.json",
        "to do: write the command into the file: it says how",
    ]
    result = sockmgr("check", "-c", str(tmp_path / "sockmgr.toml"))
    assert result.exit_code == 2
    assert "PROGRAM" in result.stderr


@pytest.mark.usefixtures("project")
def test_a_server_that_is_missing_is_named_by_the_check_that_is_next() -> None:
    Path("package.json").write_text('{"scripts": {"start": "missing-server"}}')
    Path("src/shop/main.py").unlink()
    Path("Procfile").write_text("web: missing-server --port $PORT")
    result = sockmgr("init")
    assert result.exit_code == 0
    assert "next: sockmgr check, then sockmgr run" in result.stderr
    checked = sockmgr("check")
    assert checked.exit_code == 2
    assert "missing-server is not in the PATH" in checked.stderr


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "sockmgr.toml").mkdir()
    result = sockmgr("init", str(tmp_path), "--force")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_environments_packages_links_and_what_is_too_large_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("node_modules/x", ".hidden", "my_env", "a/b/c/d/e/f"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "app.py").write_text(APP)
    (tmp_path / "my_env" / "pyvenv.cfg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    monkeypatch.setattr(init, "LARGEST", len(APP))
    (tmp_path / "app.py").write_text(f"{APP}#")
    (tmp_path / "pipe.py").mkdir()
    os.mkfifo(tmp_path / "fifo.py")
    assert sockmgr("init", "--stdout", str(tmp_path)).exit_code == 1
    monkeypatch.setattr(init, "LARGEST", len(APP) + 1)
    assert sockmgr("init", "--stdout", str(tmp_path)).exit_code == 0


PROGRAM = f"[program:web]\ncommand={sys.executable} -m uvicorn shop.main:app\nautorestart=true\n"


def test_another_managers_config_is_carried_over_and_what_was_not_is_said(project: Path) -> None:
    Path("etc").mkdir()
    Path("etc/supervisord.conf").write_text(f"{PROGRAM}directory={project}\nnumprocs=3\n")
    result = sockmgr("init", "--from", "etc/supervisord.conf")
    assert (result.exit_code, result.stdout) == (0, "sockmgr.toml: written\n"), result.stderr
    assert result.stderr.splitlines() == [
        f"found: web: {sys.executable} -m uvicorn --fd {{web}} shop.main:app",
        "left: line 3: autorestart = true: a worker that ends is replaced, after a while if it "
        "fails again",
        "next: sockmgr check, then sockmgr run",
    ]
    assert sockmgr("check").exit_code == 0
    printed = sockmgr("init", "--from", "etc/supervisord.conf", "--stdout").stdout
    assert printed == Path("sockmgr.toml").read_text()
    again = sockmgr("init", "--from", "etc/supervisord.conf")
    assert (again.exit_code, "--force" in again.stderr) == (1, True)


def test_a_config_beside_the_project_is_named_as_seen_from_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "gunicorn.conf.py").write_text("wsgi_app = 'shop.main:app'\n")
    monkeypatch.chdir("/")
    assert sockmgr("init", "--from", f"{project}/gunicorn.conf.py", str(project)).exit_code == 0
    assert '"-c", "gunicorn.conf.py"]' in (project / "sockmgr.toml").read_text()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "cannot read supervisord.conf: No such file or directory"),
        ("directory", "cannot read supervisord.conf: it is no regular file"),
        ("fifo", "cannot read supervisord.conf: it is no regular file"),
        ("100 MB", "cannot read supervisord.conf: File too large"),
        ("not UTF-8", "supervisord.conf: byte 0xff at 0 is not UTF-8"),
        ("binary", "no process that sockmgr could run"),
        ("empty", "no process that sockmgr could run"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written(
    project: Path, kind: str, said: str
) -> None:
    path = project / "supervisord.conf"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "100 MB":
            path.touch()
            os.truncate(path, 100_000_000)
        case "not UTF-8":
            path.write_bytes(b"\xff\xfe" + PROGRAM.encode())
        case "binary":
            path.write_bytes(bytes(range(128)))
        case "empty":
            path.touch()
    result = sockmgr("init", "--from", "supervisord.conf")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "nothing was written" in result.stderr
    assert not (project / "sockmgr.toml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(project: Path) -> None:
    (project / "supervisord.conf").touch(mode=0)
    result = sockmgr("init", "--from", "supervisord.conf")
    assert "cannot read supervisord.conf: Permission denied" in result.stderr


def _twice(names: int, indent: str = "") -> str:
    lines = (f"{indent}x{n} = g(x{n + 1}, x{n + 1})\n" for n in range(names))
    return "".join(lines) + f"{indent}x{names} = 1\n"


LONG = 500_000  # characters, which is below what is read of one file
# What reading by mistake takes for ever, or all memory.
HOSTILE: dict[str, dict[str, str]] = {
    "names that are used twice": {"main.py": "from x import g\n" + _twice(40)},
    "variables that are used twice": {
        "main.py": f"from x import g\ndef create_app():\n{_twice(40, '    ')}    return x0\n"
    },
    "a listen that has no end": {"package.json": "{}", "server.js": ".listen({" * (LONG // 9)},
    "blanks of listen": {"package.json": "{}", "index.js": "listen" + " " * LONG},
    "blanks in a Procfile": {"Procfile": f"web:{' ' * (LONG - 9)}x\ny"},
    "minus": {"app.py": f"app = {'-' * 50_000}1"},
    "parentheses": {"app.py": f"app = {'(' * LONG}"},
    "attributes": {"app.py": f"import a\napp = a{'.a' * 50_000}()"},
    "branches": {"app.py": "if a:\n pass\n" + "elif a:\n pass\n" * 20_000},
    "functions that return each other": {
        "app.py": "".join(f"def f{n}(): return f{n + 1}()\n" for n in range(15_000))
    },
    "functions that import": {
        "app.py": "".join(f"def f{n}():\n import a\n return f{n + 1}()\n" for n in range(9_000))
    },
    "one name for all": {"app.py": "from x import a\n" + "a = a(a, a)\n" * 40_000},
    "modules in a ring": {
        f"m{n}.py": f"from m{(n + 1) % 600} import app, create_app\n" for n in range(600)
    },
    "modules of one name": {
        f"d{n}/app.py": "".join(f"from e{m}.app import app as a{m}\n" for m in range(100))
        for n in range(300)
    },
    "sources without end": {f"m{n}.py": "x = [1, 2, 3]\n" * (LONG // 15) for n in range(60)},
    "substitutions": {"Procfile": "web: gunicorn " + "$(" * (LONG // 3)},
    "quotes": {"Procfile": "web: gunicorn " + '"$(' * (LONG // 4)},
    "patterns": {"Procfile": "web: gunicorn a:b " + "[" * (LONG - 99)},
    "processes": {"Procfile": "web: gunicorn a:b\n" + "x: sh -c 'a b'\n" * (LONG // 16)},
    "commands": {"Procfile": "web: " + "cd a && " * (LONG // 9) + "gunicorn a:b"},
    "brackets of JSON": {"package.json": "[" * LONG},
    "a long start": {"package.json": '{"scripts": {"start": "' + "a;" * (LONG // 3) + 'b"}}'},
    "keys of TOML": {"pyproject.toml": "a." * (LONG // 2) + "a = 1"},
    "tables of TOML": {"pyproject.toml": "[[a.b]]\n" * (LONG // 9)},
    "requirements": {"requirements.txt": "a" + " [" * (LONG // 3)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_directory_takes_more_time_or_memory_than_any_project_needs(
    name: str, tmp_path: Path
) -> None:
    for path, text in HOSTILE[name].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    limited = 'ulimit -v 2000000; ulimit -t 60; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", limited, "sh", sys.executable, "-m", "sockmgr", "init", "--stdout", tmp_path],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 2000


def test_what_is_no_file_is_not_waited_for(project: Path) -> None:
    for name in ("Procfile", "main.py", "requirements.txt"):
        os.mkfifo(project / name)
    (project / "package.json").symlink_to("/proc/self/fd/0")
    (project / "setup.py").symlink_to("/dev/zero")
    assert sockmgr("init").exit_code == 0
    (project / "sockmgr.toml").unlink()
    os.mkfifo(project / "sockmgr.toml")
    result = sockmgr("init", "--force")
    assert result.exit_code == 1
    assert "cannot write sockmgr.toml" in result.stderr


def test_nothing_is_imported_or_run(project: Path) -> None:
    trap = project / "ran"
    text = f"open({str(trap)!r}, 'w')\n{APP}"
    for name in ("src/shop/main.py", "setup.py", "conftest.py", "src/shop/__init__.py"):
        (project / name).write_text(text)
    assert sockmgr("init").exit_code == 0
    assert not trap.exists()


def test_the_servers_of_the_projects_own_environment_are_called_by_path(project: Path) -> None:
    program = project / ".venv" / "bin" / "uvicorn"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    sockmgr("init")
    assert 'command = [".venv/bin/uvicorn", ' in (project / "sockmgr.toml").read_text()
    assert sockmgr("check").exit_code == 0


def test_a_person_at_a_terminal_sees_what_was_found_and_what_comes_next(project: Path) -> None:
    argv = [sys.executable, "-m", "sockmgr", "init"]
    with Terminal(argv, cwd=project, env={"NO_COLOR": ""}) as terminal:
        terminal.wait_for(r"^sockmgr\.toml: written$")
        terminal.wait_for(r"^ +found  ASGI application `app` in src/shop/main\.py$")
        terminal.wait_for(r"^ +command  uvicorn --fd \{http\} shop\.main:app$")
        terminal.wait_for(r"^not found  a `web` line in a Procfile$")
        terminal.wait_for(r"^ +next  sockmgr check, then sockmgr run$")
        assert terminal.wait() == 0
        assert "\x1b[32m    found" in terminal.raw
    with Terminal(argv, cwd=project, env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for(r"^error: sockmgr\.toml is there already$")
        assert terminal.wait() == 1
        assert "\x1b" not in terminal.raw

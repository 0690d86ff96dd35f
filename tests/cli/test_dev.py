"""`sockmgr dev`: what an application, a command or a config amounts to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sockmgr.config.config import Config
from sockmgr.dev.session import Session
from tests.helpers.command_line import CONFIG, manager, path, sockmgr
from tests.helpers.fake_manager import FakeManager

__all__ = ["FakeManager", "manager", "path"]  # fixtures


@dataclass
class Started:
    """What `sockmgr dev` would have run."""

    config: Config
    control: Path


@pytest.fixture
def started(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    found: list[Started] = []

    def remember(
        source: Callable[[], Config], *, control: Path, companion: Session, file: str
    ) -> int:
        assert source == companion.source
        assert file in ("", str(Path.cwd() / "sockmgr.toml"))
        found.append(Started(config=source(), control=control))
        return 7

    monkeypatch.setattr("sockmgr.manager.run.run", remember)
    assert path.parent == Path.cwd()
    return found


def test_an_application_is_run_by_our_own_runtime_on_port_8000(started: list[Started]) -> None:
    assert sockmgr("dev", "shop.main:app").exit_code == 7
    (service,) = started[0].config.services
    assert (service.app, service.command) == ("shop.main:app", ())
    assert [str(listen.address) for listen in started[0].config.listen] == ["tcp://127.0.0.1:8000"]
    assert (service.workers, service.drain_timeout) == (1, 2.0)
    assert "SOCKMGR_DEV" in dict(service.env)


def test_an_application_of_another_environment_is_run_by_the_uvicorn_there(
    started: list[Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uvicorn").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sockmgr("dev", "shop.main:app").exit_code == 7
    (service,) = started[0].config.services
    assert (service.app, service.command) == ("", ("uvicorn", "shop.main:app"))
    assert [str(listen.address) for listen in started[0].config.listen] == ["tcp://127.0.0.1:8000"]


def test_what_is_typed_wins(started: list[Started]) -> None:
    arguments = ("--listen", "main=tcp://127.0.0.1:9", "--workers", "3", "--drain-timeout", "9")
    assert sockmgr("dev", *arguments, "shop:app").exit_code == 7
    (service,) = started[0].config.services
    assert (service.listen, service.workers, service.drain_timeout) == (("main",), 3, 9)


def test_a_known_server_gets_a_listener_and_another_command_none(started: list[Started]) -> None:
    assert sockmgr("dev", "--", "gunicorn", "shop:app").exit_code == 7
    assert sockmgr("dev", "--", "./jobs.sh").exit_code == 7
    assert [len(one.config.listen) for one in started] == [1, 0]


def test_without_a_config_the_directory_gives_the_name(
    started: list[Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory, name in (("my shop", "my-shop"), ("...", "sockmgr"), ("a" * 80, "a" * 64)):
        (tmp_path / directory).mkdir()
        monkeypatch.chdir(tmp_path / directory)
        assert sockmgr("dev", "shop:app").exit_code == 7
        assert started[-1].config.name == name


def test_a_config_is_taken_as_by_run(started: list[Started], tmp_path: Path) -> None:
    (tmp_path / "sockmgr.toml").write_text(
        CONFIG.replace("[service.web]", "[service.web]\nworkers = 4")
    )
    assert sockmgr("dev").exit_code == 7
    assert started[0].config.name == "shop-of-a-test"
    assert started[0].config.services[0].workers == 1


def test_livereload_is_told_to_the_workers_if_it_is_wanted(started: list[Started]) -> None:
    assert sockmgr("dev", "shop.main:app").exit_code == 7
    assert "SOCKMGR_LIVERELOAD" not in dict(started[-1].config.services[0].env)
    assert sockmgr("dev", "--livereload", "shop.main:app").exit_code == 7
    script = dict(started[-1].config.services[0].env)["SOCKMGR_LIVERELOAD"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/livereload\.js", script)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-c", "missing.toml"),
        ("-c", "x.toml", "shop:app"),
        ("--workers", "2"),
        ("--workers", "many", "shop:app"),
        ("--listen", "http=tcp://127.0.0.1:0"),
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    result = sockmgr("dev", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


@pytest.mark.usefixtures("path")
def test_without_uvicorn_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    result = sockmgr("dev", "shop.main:app")
    assert result.exit_code == 2
    assert "uvicorn, which is to run the application, is not installed" in result.stderr
    assert "pip install uvicorn" in result.stderr

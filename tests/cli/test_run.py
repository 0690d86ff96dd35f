"""`sockmgr run`: what a config or a command line amounts to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sockmgr.config.config import Config
from sockmgr.config.spec import Delay, Surge
from tests.helpers.command_line import CONFIG, path, sockmgr

__all__ = ["path"]  # fixture


@dataclass
class Started:
    """What `sockmgr run` would have run."""

    config: Config
    control: Path
    as_json: bool
    timeout: float | None


@pytest.fixture
def started(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    found: list[Started] = []

    def remember(
        source: Callable[[], Config],
        *,
        control: Path,
        as_json: bool,
        timeout: float | None,
        file: str,
    ) -> int:
        assert file == (str(Path.cwd() / Path(file).name) if file else "")
        found.append(Started(config=source(), control=control, as_json=as_json, timeout=timeout))
        return 7

    monkeypatch.setattr("sockmgr.manager.run.run", remember)
    assert path.parent == Path.cwd()
    return found


def test_run_describes_one_service_on_the_command_line(started: list[Started]) -> None:
    result = sockmgr(
        "run", "--name", "shop", "--listen", "http=tcp://127.0.0.1:0", "--workers", "3",
        "--cwd", "/", "--env", "A=1", "--env", "B=x=y", "--ready", "delay=0.5",
        "--drain-timeout", "90", "--stop-signal", "QUIT", "--surge", "25%", "--probation", "1m30s",
        "--control", "/elsewhere/shop.sock", "--", "server", "--workers", "9", "{http}",
    )  # fmt: skip
    assert result.exit_code == 7
    assert started[0].control == Path("/elsewhere/shop.sock")
    config = started[0].config
    (service,) = config.services
    assert config.name == "shop"
    assert [str(listen.address) for listen in config.listen] == ["tcp://127.0.0.1:0"]
    assert service.command == ("server", "--workers", "9", "{http}")
    assert (service.workers, service.cwd, service.env) == (3, "/", (("A", "1"), ("B", "x=y")))
    assert service.ready == Delay(seconds=0.5)
    assert (service.drain_timeout, service.stop_signal) == (90.0, signal.SIGQUIT)
    assert (service.rollout.surge, service.rollout.probation) == (
        Surge(amount=25, percent=True),
        90.0,
    )


def test_a_relative_control_path_is_where_workers_in_another_directory_find_it(
    started: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    sockmgr("run", "--control", "shop.sock", "--ready", "notify", "--cwd", "/", "--", "server")
    monkeypatch.setenv("SOCKMGR_CONTROL", "run/shop.sock")
    sockmgr("run", "--", "server")
    assert [one.control for one in started] == [
        Path.cwd() / "shop.sock", Path.cwd() / "run/shop.sock"
    ]  # fmt: skip


def test_run_takes_the_config_beside_it_where_nothing_else_is_said(
    started: list[Started], tmp_path: Path, path: Path
) -> None:
    (tmp_path / "sockmgr.toml").write_text(CONFIG)
    (tmp_path / "other.toml").write_text(CONFIG.replace("shop", "other"))
    assert sockmgr("run").exit_code == 7
    assert sockmgr("run", "-c", "other.toml", "--json", "--timeout", "1m").exit_code == 7
    assert [(one.as_json, one.timeout) for one in started] == [(False, None), (True, 60.0)]
    assert [one.config.name for one in started] == ["shop-of-a-test", "other-of-a-test"]
    assert [one.control for one in started] == [path, path]


@pytest.mark.parametrize("verb", ["run", "dev"])
def test_a_relative_config_in_a_directory_that_is_gone_is_an_error(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = sockmgr(verb, "-c", "../x.toml")
    assert result.exit_code == 2
    assert "../x.toml is in this directory, which has been deleted" in result.stderr


@pytest.mark.parametrize("length", [106, 107, 150])
def test_a_control_path_without_room_for_what_is_beside_it_is_refused_as_too_long(
    tmp_path: Path, length: int
) -> None:
    """What is beside it ends in .keeper, which has two bytes more than .sock."""
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    control = f"{directory}/{'x' * (length - len(str(directory)) - 6)}.sock"
    assert len(control) == length
    done = subprocess.run(
        [sys.executable, "-m", "sockmgr", "run", "--control", control, "--", "true"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        f".keeper beside it has {length + 2} bytes, and a unix path has at most 107" in done.stderr
    )


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-c", "missing.toml"),
        ("run",),
        ("run", "--listen", "http=tcp://127.0.0.1:0"),
        ("run", "--workers", "4"),
        ("run", "-c", "x.toml", "--", "true"),
        ("run", "--listen", "nonsense", "--", "true"),
        ("run", "--workers", "many", "--", "true"),
        ("run", "--env", "KEY", "--", "true"),
        ("run", "--no-such-option"),
        ("check", "-c", "missing.toml"),
        ("reload", "--timeout", "soon"),
        ("reload", "--timeout", "0"),
        ("status", "-c", "missing.toml"),
        ("scale", "web"),
        ("restart",),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    result = sockmgr(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr

"""Completions, asked for as a shell asks, and by pressing TAB in real shells."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sockmgr.cli import cli
from tests.helpers.command_line import CONFIG, manager, path, sockmgr
from tests.helpers.terminal import Terminal

__all__ = ["manager", "path"]  # fixtures

BIN = Path(sys.executable).parent


def completed(*words: str) -> list[str]:
    """Return what is offered for the last of the words behind `sockmgr`."""
    line = " ".join(["sockmgr", *words])
    done = subprocess.run(
        [sys.executable, "-m", "sockmgr"],
        env={
            **os.environ, "_SOCKMGR_COMPLETE": "bash_complete", "COMP_WORDS": line,
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.fixture
def config(path: Path) -> Path:
    found = path.with_name("sockmgr.toml")
    more = '[service.back]\ncommand = ["true"]\nlisten = []\n'
    found.write_text(CONFIG.replace("[service.web]", "[service.front]") + more)
    return found


@pytest.mark.usefixtures("path")
def test_every_verb_and_the_options_of_one_are_offered() -> None:
    assert set(completed("")) == set(cli.list_commands(click.Context(cli)))
    assert completed("rel") == ["reload"]
    assert "--timeout" in completed("reload", "--")
    assert completed("completions", "") == ["bash", "zsh", "fish"]


@pytest.mark.usefixtures("manager", "config")
def test_services_are_those_that_run_if_a_manager_does() -> None:
    assert completed("reload", "") == ["web", "job"]
    assert completed("reload", "web", "") == ["job"]
    assert completed("scale", "w") == completed("logs", "w") == ["web"]
    assert completed("scale", "web", "") == []


@pytest.mark.usefixtures("path")
def test_services_are_those_of_the_config_if_no_manager_runs(config: Path) -> None:
    assert completed("reload", "") == ["front", "back"]
    other = config.rename(config.with_name("other.toml"))
    assert completed("reload", "") == []
    assert completed("reload", "-c", str(other), "b") == ["back"]


@pytest.mark.usefixtures("config")
def test_a_manager_that_hangs_holds_up_nobody_who_completes(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        assert completed("reload", "") == ["front", "back"]


def test_a_config_that_cannot_be_read_offers_nothing_and_says_nothing(config: Path) -> None:
    config.write_text("what is this")
    assert completed("reload", "") == []


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("line", ["sockmgr ", "sockmgr reload "])
def test_completing_imports_nothing_slow(line: str) -> None:
    env = {**os.environ, "_SOCKMGR_COMPLETE": "bash_complete", "COMP_WORDS": line}
    env["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    command = [sys.executable, "-X", "importtime", "-m", "sockmgr"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sockmgr.cli" in imported
    assert not imported & {"asyncio", "rich", "psutil", "prometheus_client"}


def test_an_unknown_shell_is_a_usage_error() -> None:
    assert sockmgr("completions", "tcsh").exit_code == 2
    assert sockmgr("completions").exit_code == 2


# --- Real shells ---------------------------------------------------------------------------------

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(sockmgr completions bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -U compinit; compinit -u -D; eval "$(sockmgr completions zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "sockmgr completions fish | source"),
}
HOME_KEY = "\x01"  # Ctrl-A


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes_verbs_services_and_files(shell: str, tmp_path: Path) -> None:
    argv, setup = SHELLS[shell]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{shell} is not installed")
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "INPUTRC": "/dev/null"}
    with Terminal(argv, cwd=tmp_path, env=env) as terminal:
        terminal.type(f"{setup}; echo rea''dy\r")
        terminal.wait_for("^ready$")
        for typed, whole in (
            ("sockmgr relo\t", "sockmgr reload"),
            ("sockmgr reload fr\t", "sockmgr reload front"),
            ("sockmgr scale ba\t", "sockmgr scale back"),
            ("sockmgr check -c sockm\t", "sockmgr check -c sockmgr.toml"),
        ):
            terminal.type(f"{typed}{HOME_KEY}echo \r")
            terminal.wait_for(f"^{whole} *$")

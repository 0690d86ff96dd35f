"""Verbs whose stdin, stdout or stderr is closed, full or left: they do the same."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.helpers.command_line import CONFIG, manager, path
from tests.helpers.fake_manager import ABORTED, FakeManager

__all__ = ["manager", "path"]  # fixtures

PYTHON = sys.executable
WAYS = (
    ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&LEFT", ">&LEFT 2>&LEFT", ">&-", "2>&-",
    "<&-", "<&- >&- 2>&-",
)  # fmt: skip


def verb(line: str, way: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Call a verb as a shell does; LEFT is a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [
                "bash",
                "-c",
                f'exec "$0" -m sockmgr {line} {way.replace("LEFT", str(write))}',
                PYTHON,
            ],
            capture_output=True,
            check=False,
            pass_fds=[write],
            env={**os.environ, **environ},
            timeout=60,
        )
    finally:
        os.close(write)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_done_and_its_exit_code_do_not_depend_on_the_standard_streams(
    manager: FakeManager, way: str
) -> None:
    for line in ("reload web", "scale web 3", "restart-worker web@8.1", "stop --now", "upgrade"):
        result = verb(line, way)
        assert (result.returncode, b"Traceback" in result.stderr) == (0, False), line
    assert manager.reloads == [("web",)]
    assert manager.scaled == [("web", 3, False)]
    assert manager.restarted == ["web@8.1"]
    assert manager.stopped == [True]
    assert manager.upgraded == 1


@pytest.mark.parametrize("way", WAYS[::2])
def test_an_aborted_reload_and_a_config_without_use_keep_their_exit_codes(
    manager: FakeManager, path: Path, way: str
) -> None:
    manager.verdicts = [ABORTED]
    manager.answer = replace(manager.answer, applies=False)  # it reads another file
    (path.parent / "broken.toml").write_text("nonsense = 1")
    assert verb("reload", way).returncode == 1
    assert verb("check -c broken.toml", way).returncode == 2


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("way", WAYS[::3])
def test_a_file_is_written_whatever_becomes_of_the_words_about_it(path: Path, way: str) -> None:
    (path.parent / "Procfile").write_text("web: uvicorn shop:app --port $PORT\n")
    verb("init", way)
    assert "[service.web]" in (path.parent / "sockmgr.toml").read_text()


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    "line",
    ["status", "check", "logs", "events --no-follow", "schema", "completions bash", "metrics",
     "doctor --systemd 252", "top --once", "--help"],
)  # fmt: skip
def test_no_verb_has_a_traceback_for_an_answer_that_cannot_be_written(
    path: Path, line: str
) -> None:
    (path.parent / "sockmgr.toml").write_text(CONFIG)
    full, left = verb(line, ">/dev/full"), verb(line, ">&LEFT")
    assert b"Traceback" not in full.stderr + left.stderr
    if full.returncode or line in ("schema", "completions bash", "metrics"):
        assert b"could not be written: No space left" in full.stderr
    assert left.returncode == verb(line, "").returncode


@pytest.mark.usefixtures("path")
def test_a_document_that_is_not_all_there_is_a_failure() -> None:
    full = verb("schema", ">/dev/full")
    assert full.returncode == 1
    assert full.stderr.startswith(b"error: the output could not be written: No space")
    assert verb("schema", ">&LEFT").returncode == 0


@pytest.mark.usefixtures("manager")
def test_a_stdout_that_does_not_block_gets_everything() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    command = [PYTHON, "-m", "sockmgr", "schema"]
    with subprocess.Popen(command, stdout=write) as caller:
        os.close(write)
        with Path(f"/proc/self/fd/{read}").open("rb") as taken:
            whole = taken.read()
        os.close(read)
    assert caller.returncode == 0
    assert whole == verb("schema", "").stdout


@pytest.mark.usefixtures("path")
def test_what_a_locale_cannot_write_is_shown_by_its_code() -> None:
    arrow = verb("completions fish", "", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert arrow.returncode == 0
    odd = verb("check -c caf$(printf '\\351').toml", "")
    assert odd.returncode == 2
    assert b"cannot read caf\\udce9.toml" in odd.stderr


@pytest.mark.parametrize("line", ["logs -f", "events"])
def test_a_follower_ends_when_nobody_reads_it_though_nothing_comes(
    manager: FakeManager, line: str
) -> None:
    manager.tell("one line")
    manager.happen("exited with status 1")
    command = [PYTHON, "-m", "sockmgr", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as follower:
        assert follower.stdout is not None
        assert b"\n" in follower.stdout.read(4096)
        follower.stdout.close()
        assert follower.wait(30) == 0


def test_the_log_of_a_manager_without_standard_streams_is_taken_for_nothing_else(
    tmp_path: Path,
) -> None:
    """It has no descriptor of its own where stdin, stdout and stderr would be."""
    control = tmp_path / "m.sock"
    program = r"printf '\001\003\017\n'; exec sleep 100"  # HUP, QUIT and TERM, as bytes
    line = f'run --control {control} -- sh -c "{program}"'
    script = f'exec "$0" -m sockmgr {line} <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", script, PYTHON]) as run:
        try:
            while verb(f"status --control {control}", "").returncode:
                assert run.poll() is None
            names = [str(Path(f"/proc/{run.pid}/fd/{fd}").readlink()) for fd in range(3)]
            told = verb(f"logs --control {control}", "").stdout
            reloaded = verb(f"reload --control {control}", "")
        finally:
            run.send_signal(signal.SIGTERM)
    assert names == [os.devnull] * 3
    assert b"\\x01\\x03\\x0f" in told or b"\x01\x03\x0f" in told
    assert b"generation 2 " in reloaded.stdout
    assert b"signal" not in told.replace(b"\\x01\\x03\\x0f", b"")
    assert run.returncode == 0

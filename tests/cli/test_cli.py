"""The command line: answers on stdout, narration on stderr, the outcome in the exit code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from msgspec.structs import replace

from sockmgr.api.figures import Comparison, Finding
from sockmgr.api.types import DrainingGeneration, WarmUp
from sockmgr.cli import target
from sockmgr.errors import ConfigError, ControlError, SpawnError
from tests.helpers.command_line import CONFIG, manager, on_terminal, path, sockmgr
from tests.helpers.fake_manager import ABORTED, FakeManager, a_verdict, progress, serving

__all__ = ["manager", "path"]  # fixtures


# --- restart-worker ------------------------------------------------------------------------------


def test_restart_worker_tells_who_is_the_successor(manager: FakeManager) -> None:
    result = sockmgr("restart-worker", "web@8.1")
    assert (result.exit_code, result.stdout) == (0, "web@8.1 is replaced by web@8.9\n")
    found = json.loads(sockmgr("restart-worker", "web@8.2", "--json").stdout)
    assert found == {"worker": "web@8.2", "successor": "web@8.9"}
    assert manager.restarted == ["web@8.1", "web@8.2"]


# --- reload --------------------------------------------------------------------------------------


def test_reload_tells_the_verdict_and_the_receipt(manager: FakeManager) -> None:
    result = sockmgr("reload", "web")
    assert result.exit_code == 0
    assert result.stdout == (
        "generation 8 is serving: 4/4 workers in 2.1 s; generation 7 draining, 3 left\n"
        "queue peak 3, 0 overflows, cut-over steered\n"
    )
    assert manager.reloads == [("web",)]


def test_reload_asks_once_and_says_what_the_receipt_has_of_those_who_drain(
    manager: FakeManager,
) -> None:
    asked = manager.asked
    assert "; generation 7 draining, 3 left" in sockmgr("reload", "web").stdout
    assert manager.asked - asked <= 1  # whether it is there, before a wait that may be long


@pytest.mark.parametrize(
    ("draining", "said"),
    [
        ((), ""),
        (None, "; older workers draining, 3 left"),
        (
            (
                DrainingGeneration(generation=5, workers=1),
                DrainingGeneration(generation=7, workers=2),
            ),
            "; generation 5 draining, 1 left; generation 7 draining, 2 left",
        ),
    ],
)
def test_reload_says_of_each_older_generation_how_many_are_left(
    manager: FakeManager, draining: tuple[DrainingGeneration, ...] | None, said: str
) -> None:
    receipt = replace(a_verdict().receipt, draining_generations=draining)
    manager.verdicts = [a_verdict(receipt=receipt)]
    [line, *_] = sockmgr("reload", "web").stdout.splitlines()
    assert line == f"generation 8 is serving: 4/4 workers in 2.1 s{said}"


def test_reload_says_how_a_canary_answered(manager: FakeManager) -> None:
    canary = Comparison(
        finding=Finding.ALIKE, requests=500, old_requests=4500,
        errors=0.001, old_errors=0.002, p95=0.0413, old_p95=0.0402,
    )  # fmt: skip
    numbers = "errors 0.1 % (old 0.2 %), p95 41 ms (old 40 ms), of 500 requests (old 4500)"
    manager.verdicts = [a_verdict(receipt=replace(a_verdict().receipt, canary=canary))]
    assert f"canary: {numbers}" in sockmgr("reload", "web").stdout.splitlines()
    few = replace(canary, finding=Finding.TOO_FEW, wanted=600)
    manager.verdicts = [a_verdict(receipt=replace(a_verdict().receipt, canary=few))]
    proof = "500 requests (old 4500) came, of 600 wanted to each"
    assert f"warning: the canary proved little: {proof}" in sockmgr("reload").stdout.splitlines()
    receipt = replace(a_verdict().receipt, canary=few)
    manager.verdicts = [a_verdict(verdict="aborted", reason="it crashed", receipt=receipt)]
    assert f"canary: {numbers}: too few to tell" in sockmgr("reload", "web").stdout.splitlines()


def test_reload_narrates_a_line_a_phase_on_stderr(manager: FakeManager) -> None:
    manager.news = [*manager.news, progress(4, "probation"), progress(4, "current", "committed")]
    assert sockmgr("reload").stderr.splitlines() == [
        "web: generation 8 booting, 0/4 ready, 0.0 s",
        "web: generation 8 probation, 4/4 ready, 2.0 s",
        "web: generation 8 current, 4/4 ready, 2.0 s: committed",
    ]


def test_reload_of_several_services_says_which_is_which(manager: FakeManager) -> None:
    manager.verdicts = [a_verdict(), a_verdict(service="job", generation=3)]
    lines = sockmgr("reload").stdout.splitlines()
    assert lines[0].startswith("web: generation 8 is serving: 4/4 workers in 2.1 s")
    assert lines[2].startswith("job: generation 3 is serving after 2.1 s")


def test_an_aborted_reload_fails_and_tells_why_what_serves_and_what_the_worker_said(
    manager: FakeManager,
) -> None:
    manager.verdicts = [a_verdict(service="job"), ABORTED]
    result = sockmgr("reload")
    assert result.exit_code == 1
    assert result.stdout.endswith(
        "web: generation 8 aborted after 1.2 s: worker 8.0 exited with status 3\n"
        "web: generation 7 keeps serving\n"
        "web:   Traceback\n"
        "web:   ImportError: no shop\n"
    )


def test_lines_of_a_worker_that_repeat_but_for_the_port_of_a_client_are_shown_once(
    manager: FakeManager,
) -> None:
    asked = [f'127.0.0.1:{port} - "GET /healthz HTTP/1.1" 503' for port in range(40000, 40018)]
    manager.verdicts = [replace(ABORTED, output=("line 1", "line 2", *asked, "bye"))]
    shown = sockmgr("reload").stdout.splitlines()[-4:]
    assert shown == ["  line 1", "  line 2", f"  {asked[-1]} (18 times)", "  bye"]


def test_an_aborted_reload_without_a_fallback_says_so(manager: FakeManager) -> None:
    manager.verdicts = [a_verdict(verdict="aborted", reason="it hangs", kept=0)]
    assert "no generation is serving" in sockmgr("reload").stdout


def test_nobody_keeps_serving_of_whom_nobody_is_ready(manager: FakeManager) -> None:
    manager.verdicts = [a_verdict(verdict="aborted", reason="it hangs", kept=7, kept_ready=0)]
    told = sockmgr("reload").stdout
    assert "generation 7 stays, and none of its workers is ready\n" in told
    assert "keeps serving" not in told


def test_reload_tells_what_clients_were_spared_by_a_warm_up(manager: FakeManager) -> None:
    warm_up = WarmUp(requests=24, failed=1, first=1.87, last=0.011, is_cut=True)
    manager.verdicts = [a_verdict(receipt=replace(a_verdict().receipt, warm_up=warm_up))]
    assert sockmgr("reload").stdout.splitlines()[-1] == (
        "warmed up by 24 requests: the first took up to 1.870 s, the last 0.011 s; "
        "1 failed: no answer, or a 5xx (see sockmgr doctor); there was no time for all"
    )


def test_reload_tells_of_old_workers_that_died_or_must_end_now(manager: FakeManager) -> None:
    receipt = replace(a_verdict().receipt, died=1, finishing=2)
    manager.verdicts = [a_verdict(receipt=receipt)]
    assert sockmgr("reload").stdout.endswith(
        "queue peak 3, 0 overflows, cut-over steered, 1 died in the drain\n"
        "2 workers must end now: too many generations are draining (max_draining)\n"
    )


def test_reload_answers_in_json_with_a_list_of_verdicts(manager: FakeManager) -> None:
    manager.verdicts = [a_verdict(), ABORTED]
    result = sockmgr("reload", "--json")
    assert result.exit_code == 1
    committed, aborted = json.loads(result.stdout)
    assert list(committed) == [
        "service", "verdict", "generation", "seconds", "reason", "receipt", "kept",
        "kept_ready", "output", "worker", "journal", "failed", "release", "rollback",
    ]  # fmt: skip
    assert committed["receipt"] == {
        "queue_peak": 3, "overflows": 0, "drained": 1, "killed": 0, "draining": 3,
        "cutover": "steered", "died": 0, "finishing": 0,
        "draining_generations": [{"generation": 7, "workers": 3}], "moved": 0, "warm_up": None,
        "canary": None,
    }  # fmt: skip
    assert (committed["verdict"], committed["generation"], committed["kept"]) == ("committed", 8, 8)
    assert (aborted["verdict"], aborted["kept"]) == ("aborted", 7)
    assert aborted["output"] == ["Traceback", "ImportError: no shop"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0.3", 0.3), ("1m30s", 90), ("1m30", 90), ("500ms", 0.5), ("1d", 86400)],
)
def test_a_timeout_is_seconds_or_a_duration_as_in_the_config(text: str, seconds: float) -> None:
    assert target.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1x", "s", "soon", "inf", "nan"])
def test_what_is_no_duration_is_no_timeout(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        target.duration(text)


def test_reload_that_takes_too_long_says_that_it_goes_on(manager: FakeManager) -> None:
    manager.gate.clear()
    result = sockmgr("reload", "--timeout", "0.3")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert "goes on" in result.stderr


def test_ctrl_c_ends_the_waiting_and_says_that_the_reload_goes_on(
    manager: FakeManager, path: Path
) -> None:
    manager.gate.clear()
    command = [sys.executable, "-m", "sockmgr", "reload", "--control", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as caller:
        assert caller.stderr is not None
        assert "booting" in caller.stderr.readline()
        caller.send_signal(signal.SIGINT)
        assert "goes on" in caller.stderr.read()
    assert caller.returncode == 130
    assert manager.reloads == [()]


# --- status --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("manager")
def test_status_shows_listeners_services_and_workers() -> None:
    result = sockmgr("status")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["http", "tcp://127.0.0.1:8000", "2/4096", "steered"] in rows
    assert ["web", "8", "serving", "4", "-", "-"] in rows
    assert ["web@7.2", "7002", "draining", "5", "-", "48M", "4s"] in rows
    assert "9 booting, 1/4 ready, 20 s left" in result.stdout


@pytest.mark.usefixtures("manager")
def test_status_answers_in_json_with_the_public_keys() -> None:
    found = json.loads(sockmgr("status", "--json").stdout)
    assert list(found) == ["manager", "listeners", "services"]
    assert list(found["manager"]) == [
        "pid",
        "version",
        "started",
        "refused",
        "config",
        "dispatcher",
        "stopping",
    ]
    listener = ["address", "queue", "backlog", "cutover", "choice", "unreachable"]
    assert list(found["listeners"]["http"]) == listener
    web, job = found["services"]["web"], found["services"]["job"]
    assert list(web) == [
        "generation", "state", "workers", "rollout", "killed", "died", "repairs", "wanted",
        "accept", "failures", "counts", "accepted", "moved",
        "requests", "release", "rollback", "hook", "recycle_pause",
    ]  # fmt: skip
    assert list(web["counts"]) == [
        "committed", "aborted", "started", "not_started", "drained", "unclean", "killed",
        "recycled", "exited", "crashed", "unready", "hung", "connections_lost",
        "max_rss", "max_requests", "max_age", "max_cpu_time",
    ]  # fmt: skip
    assert list(web["workers"][0]) == [
        "slot", "generation", "pid", "state", "rss", "age", "lease", "connections", "probe",
        "recycle",
    ]  # fmt: skip
    assert web["rollout"] is None
    assert list(job["rollout"]) == [
        "generation", "phase", "ready", "wanted", "deadline", "canary", "release",
    ]  # fmt: skip


def test_status_says_how_a_queue_is_chosen_where_there_are_several(manager: FakeManager) -> None:
    manager.choice = "random (classic BPF)"
    assert "  steered, random (classic BPF)\n" in sockmgr("status").stdout


# --- scale and stop ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "asked", "told"),
    [
        ("6", ("web", 6, False), "web: 6 workers wanted\n"),
        ("+1", ("web", 1, True), "web: 5 workers wanted\n"),
        ("-3", ("web", -3, True), "web: 1 worker wanted\n"),
        ("-12", ("web", -12, True), "web: -8 workers wanted\n"),
    ],
)
def test_scale_takes_a_number_or_a_change(
    manager: FakeManager, said: str, asked: tuple[str, int, bool], told: str
) -> None:
    result = sockmgr("scale", "web", said)
    assert (result.exit_code, result.stdout) == (0, told)
    assert manager.scaled == [asked]
    assert json.loads(sockmgr("scale", "web", said, "--json").stdout)["service"] == "web"


@pytest.mark.parametrize("said", ["many", "1.5", "--3", "+", "", "\u0661"])
def test_scale_to_what_is_no_number_is_a_usage_error(manager: FakeManager, said: str) -> None:
    assert sockmgr("scale", "web", said).exit_code == 2
    assert not manager.scaled


@pytest.mark.parametrize(("flags", "now"), [((), False), (("--now",), True)])
def test_stop_waits_for_the_end(manager: FakeManager, flags: tuple[str, ...], now: bool) -> None:
    result = sockmgr("stop", *flags)
    assert (result.exit_code, result.stdout) == (0, "stopped: no worker is left\n")
    assert json.loads(sockmgr("stop", *flags, "--json").stdout) == {"stopped": True}
    assert manager.stopped == [now, now]


# --- Exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ControlError("no", do="wait"), 1),
        (SpawnError("no", do="wait"), 1),
        (ConfigError("no", do="wait"), 2),
        (ValueError("a bug"), 1),
    ],
)
def test_an_error_of_the_manager_is_told_and_decides_the_exit_code(
    manager: FakeManager, error: Exception, code: int
) -> None:
    manager.error = error
    for verb in ("status", "reload"):
        result = sockmgr(verb)
        assert (result.exit_code, result.stdout) == (code, "")
        assert "error: " in result.stderr


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("verb", ["status", "reload", "stop", "scale web 4"])
def test_without_a_manager_the_exit_code_is_3(verb: str) -> None:
    result = sockmgr(*verb.split())
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "no manager answers" in result.stderr


def test_a_manager_that_hangs_is_exit_code_4_for_who_looks(path: Path) -> None:
    with hung(path):
        for verb in ("status", "logs", "events"):
            result = sockmgr(verb, "--timeout", "0.2")
            assert (result.exit_code, "goes on" in result.stderr) == (4, False)


@pytest.mark.parametrize(
    "verb", ["reload", "stop", "scale web 4", "restart-worker web@1.1", "upgrade"]
)
def test_what_a_manager_that_hangs_was_never_asked_has_failed_and_does_not_go_on(
    path: Path, verb: str
) -> None:
    with hung(path):
        result = sockmgr(*verb.split(), "--timeout", "0.2")
    assert result.exit_code == 1
    assert "did not answer in time\n  it was asked nothing, so nothing changes" in result.stderr
    assert "goes on" not in result.stderr


def test_a_manager_that_dies_before_it_is_asked_was_asked_nothing(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()

        def hang_up() -> None:
            dying.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        result = sockmgr("reload")
        thread.join()
    assert result.exit_code == 1
    assert "asked nothing" in result.stderr
    assert "may have happened" not in result.stderr


@pytest.mark.parametrize("verb", ["status", "reload"])
def test_a_path_where_no_manager_can_be_is_told_as_such(verb: str) -> None:
    result = sockmgr(verb, "--control", "/tmp/" + "x" * 120 + ".sock")
    assert result.exit_code == 3
    assert "a unix path has at most 107 bytes" in result.stderr
    assert "happened" not in result.stderr


@contextlib.contextmanager
def hung(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield


def test_a_manager_is_found_by_the_name_in_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    config = tmp_path / "shop.toml"
    config.write_text(CONFIG)
    assert sockmgr("status", "-c", str(config)).exit_code == 3
    with serving(tmp_path / "shop-of-a-test.sock"):
        assert sockmgr("status", "-c", str(config)).exit_code == 0


# --- Which manager is meant -----------------------------------------------------------------------


def place(directory: Path, name: str) -> Path:
    """Make a directory with a config of this name."""
    directory.mkdir()
    file = directory / "sockmgr.toml"
    file.write_text(CONFIG.replace("shop-of-a-test", name))
    return file


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return two configs with names of their own, in the directory of the second."""
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    files = place(tmp_path / "a", "shop-a-of-a-test"), place(tmp_path / "b", "shop-b-of-a-test")
    monkeypatch.chdir(tmp_path / "b")
    return files


CHANGING = ("reload", "stop", "scale web 4", "restart-worker web@8.1", "upgrade")
OF_A_ROLLOUT = ("promote web", "abort web", "rollback web")


@pytest.mark.parametrize("verb", [*CHANGING, *OF_A_ROLLOUT, "status"])
def test_a_verb_that_changes_something_wants_its_manager_named_even_if_only_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sockmgr", *verb.split()])
    control = tmp_path / "the shop.sock"
    monkeypatch.setattr(target, "find_control", lambda *_: control)  # as if no other ran here
    with serving(control, config="/etc/shop.toml") as only:
        result = sockmgr(*verb.split())
        assert untouched(only)
    if verb == "status":
        assert result.exit_code == 0
        return
    assert result.exit_code == 2
    assert f"the only one that runs here is that at {control}, which reads /etc/shop.toml" in (
        result.stderr
    )
    assert f"if it is meant: sockmgr {verb} --control '{control}'" in result.stderr


@pytest.mark.parametrize("verb", [*CHANGING, "status", "logs"])
def test_in_a_directory_with_a_config_only_its_manager_is_meant(
    two: tuple[Path, Path], tmp_path: Path, verb: str
) -> None:
    control = tmp_path / "shop-a-of-a-test.sock"
    with serving(control, config=str(two[0])) as other:
        result = sockmgr(*verb.split())
        assert result.exit_code == 3
        assert 'no manager answers named "shop-b-of-a-test"' in result.stderr
        assert "the name in sockmgr.toml" in result.stderr
        assert f"others run: {control}" in result.stderr
        assert untouched(other)
        with serving(tmp_path / "shop-b-of-a-test.sock", config=str(two[1])) as own:
            assert sockmgr(*verb.split()).exit_code == 0
        assert untouched(other)
        assert untouched(own) is (verb in ("status", "logs"))


def untouched(manager: FakeManager) -> bool:
    asked = (manager.reloads, manager.scaled, manager.restarted, manager.stopped)
    turned = (manager.rolled_back, manager.decided, manager.upgraded)
    return not any(asked) and not any(turned)


@pytest.mark.parametrize("reads", ["/elsewhere/sockmgr.toml", ""])
def test_a_manager_of_the_same_name_that_reads_another_config_is_asked_to_change_nothing(
    two: tuple[Path, Path], tmp_path: Path, reads: str
) -> None:
    control = tmp_path / "shop-b-of-a-test.sock"
    with serving(control, config=reads) as manager:
        for options in ((), ("-c", str(two[1]))):
            for verb in CHANGING:
                result = sockmgr(*verb.split(), *options)
                assert result.exit_code == 1
                assert f"{two[1]} is not its config\n  it was asked nothing" in result.stderr
                assert f"--control {control}" in result.stderr
            assert untouched(manager)
            result = sockmgr("status", *options)
            assert result.exit_code == 0
            assert result.stderr.startswith(f"note: the manager at {control} ")
        assert sockmgr("reload", "--control", str(control)).exit_code == 0
        manager.config = None  # one of an older version does not tell
        assert sockmgr("reload").exit_code == 0


def test_of_two_managers_of_one_name_that_of_the_config_is_meant(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "sockmgr").mkdir(parents=True)
    name = "shop-b-of-a-test.sock"
    with (
        serving(tmp_path / name, config="/elsewhere.toml") as first,
        serving(tmp_path / "xdg" / "sockmgr" / name, config=str(two[1])) as second,
    ):
        assert sockmgr("reload").exit_code == 0
        assert (first.reloads, second.reloads) == ([], [()])
        second.config = "/elsewhere.toml"
        result = sockmgr("reload")
        assert result.exit_code == 1
        assert "several managers run here" in result.stderr
        assert "with -c" not in result.stderr


def test_a_config_that_cannot_be_read_says_of_no_manager_that_it_is_meant(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    two[1].write_text("= 7")
    with serving(tmp_path / "shop-a-of-a-test.sock") as other:
        result = sockmgr("stop")
        assert result.exit_code == 2
        assert "it is not known which manager is meant, and none was asked" in result.stderr
        assert untouched(other)
        looked = sockmgr("status")
        assert looked.exit_code == 0
        assert looked.stderr.startswith("note: sockmgr.toml:1:1: ")


@pytest.mark.usefixtures("path")
def test_a_missing_file_that_was_named_is_to_be_corrected_not_named() -> None:
    assert sockmgr("reload", "-c", "missing.toml").stderr == (
        "error: cannot read missing.toml: No such file or directory\n  correct the path\n"
    )


# --- Pipes, terminals, time ----------------------------------------------------------------------


def as_command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sockmgr", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERM": "xterm", **environ},
    )


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("verb", ["status", "status --json", "reload", "stop", "--help"])
def test_what_is_piped_is_plain_text(verb: str) -> None:
    result = as_command(*verb.split(), FORCE_COLOR="1")
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("verb", ["status", "reload"])
def test_a_terminal_gets_more_than_plain_text_unless_it_does_not_want_it(verb: str) -> None:
    assert "\x1b" in on_terminal(verb, NO_COLOR="")
    assert "\x1b" not in on_terminal(verb, NO_COLOR="1")
    assert "\x1b" not in on_terminal(verb, TERM="dumb")
    assert "\x1b" not in on_terminal(verb, "--json")


EVIL = "\x1b]0;mine\x07 lie\rtruth \x1b[2J"
EVIL_IN_TEXT = EVIL.replace("\r", "\n")  # of subprocess, with text=True
HARMLESS = "\\x1b]0;mine\\x07 lie\\rtruth \\x1b[2J"


def test_neither_workers_nor_a_manager_command_the_terminal_of_a_verb(
    manager: FakeManager,
) -> None:
    manager.verdicts = [a_verdict(verdict="aborted", reason=EVIL, output=(EVIL, "\x1b[31mred"))]
    manager.news = [progress(1, message=EVIL)]
    manager.tell(EVIL)
    manager.choice = EVIL
    shown = on_terminal("reload", code=1) + on_terminal("logs") + on_terminal("status")
    manager.error = ControlError(EVIL)
    shown += on_terminal("stop", code=1) + on_terminal("status", code=1)
    for escape in ("\x1b]", "\x07", "lie\r", "\x1b[2J"):
        assert escape not in shown
    assert shown.count(HARMLESS) >= 6
    assert "\x1b[31mred\x1b[0m" in shown


def test_files_and_pipes_get_what_workers_print_as_it_is(manager: FakeManager) -> None:
    manager.tell(EVIL)
    assert as_command("logs").stdout.endswith(f"web@8.1 | {EVIL_IN_TEXT}\n")
    assert json.loads(as_command("logs", "--json").stdout)["message"] == EVIL


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("columns", [10, 20, 40, 60, 80])
def test_a_narrow_terminal_gets_fewer_columns_of_whole_words(columns: int) -> None:
    text = on_terminal("status", COLUMNS=str(columns), NO_COLOR="")
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    workers = [line.split() for line in lines if line.startswith("web@")]
    assert len(workers) == 7
    whole = ["web@7.2", "7002", "draining", "5", "-", "48M", "4s"]
    assert workers[-1] == whole[: len(workers[-1])]
    assert len(workers[-1]) == {10: 1, 20: 2, 40: 5}.get(columns, 7)


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("verb", ["status", "reload"])
def test_a_command_imports_nothing_slow(verb: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sockmgr", verb]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sockmgr.client" in imported
    slow = {
        "asyncio", "rich", "psutil", "tomli", "logging", "prometheus_client", "json", "subprocess",
        "sockmgr.config", "sockmgr.launch", "sockmgr.client.elsewhere",
        "sockmgr.kernel.steering", "encodings.idna",
    }  # fmt: skip
    # Before 0.20, msgspec imports json itself.
    assert not imported & slow - _imported_by("msgspec")


def _imported_by(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_the_end_of_a_command_looks_at_nothing_for_garbage() -> None:
    program = (
        "import atexit, gc, sys; from sockmgr import cli; sys.argv[1:] = ['--version']; "
        "atexit.register(lambda: print('at the end', len(gc.get_objects()) < 100)); cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "at the end True"

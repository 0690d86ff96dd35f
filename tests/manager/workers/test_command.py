"""A command ends once, with a value, whatever it prints, starts or waits for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from sockmgr.config.spec import Spec
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers.command import LOGGED_MAX, UNKNOWN, Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.manager.workers.family import Family
from tests.helpers.children import wait_until
from tests.helpers.proc import is_alive

NAME = "web@2 before"


def context(sink: Sink, family: Family) -> WorkerContext:
    """Return as much of a context as a command uses."""
    loop = asyncio.get_running_loop()
    return cast("WorkerContext", SimpleNamespace(loop=loop, sink=sink, family=family))


def ran(
    text: str,
    directory: Path,
    *,
    timeout: float = 30.0,
    variables: Mapping[str, str] | None = None,
    executable: str = "/bin/sh",
    during: Callable[[Command], None] = lambda _: None,
) -> tuple[Result, str]:
    """Run a script of the shell; return how it ended, and what is in the log."""
    log = directory / "log"

    async def run() -> Result:
        loop, family = asyncio.get_running_loop(), Family()
        ended: asyncio.Future[Result] = loop.create_future()
        with log.open("wb") as stderr:
            sink = Sink(stderr.fileno())
            sink.attach(loop)
            command = Command(NAME, context(sink, family), ended.set_result)
            spec = Spec(
                service="web", argv=(), executable="", cwd=str(directory),
                env=(("PATH", os.environ["PATH"]), ("FROM", "config")),
            )  # fmt: skip
            argv = ("sh", "-c", text)
            command.start(of_generation(spec, argv, executable, variables or {}), timeout)
            during(command)
            result = await asyncio.wait_for(ended, 60)
            assert not family.known
            sink.close()
        return result

    return asyncio.run(run()), log.read_text()


def is_gone(pid: int) -> bool:
    return not is_alive(pid)


def test_a_command_that_exits_with_0_has_no_fault(tmp_path: Path) -> None:
    result, log = ran('echo "$FROM $MORE"; pwd', tmp_path, variables={"MORE": "ours"})
    assert (result.fault, result.status) == ("", 0)
    assert result.lines == ("config ours", str(tmp_path))
    assert f"{NAME} | config ours\n" in log


def test_a_bad_status_and_a_signal_are_told(tmp_path: Path) -> None:
    assert ran("exit 3", tmp_path)[0] == Result(fault="exited with status 3", status=3)
    assert ran("kill -9 $$", tmp_path)[0].fault == "was killed by signal 9 (KILL)"


def test_a_command_that_is_missing_or_not_executable_ends_as_any_other(tmp_path: Path) -> None:
    missing, log = ran("", tmp_path, executable=str(tmp_path / "nothing"))
    fault = f"could not be started: command not found: {tmp_path}/nothing"
    assert (missing.status, missing.fault) == (None, fault)
    assert f"| command not found: {tmp_path}/nothing" in log
    (plain := tmp_path / "plain").write_text("#!/bin/sh\n")
    fault = ran("", tmp_path, executable=str(plain))[0].fault
    assert (
        fault
        == f"could not be started: cannot run {plain}: it is not executable by the manager's user"
    )


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    text = "setsid sleep 600 & echo $! >pids; sleep 600 & echo $! >>pids; echo waits; wait"
    result, _ = ran(text, tmp_path, timeout=1)
    assert result == Result(fault="did not end within 1 s", lines=("waits",))
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(partial(is_gone, pid), what=f"the end of {pid}")


def test_one_that_is_killed_tells_why_when_it_is_dead(tmp_path: Path) -> None:
    result, _ = ran("sleep 600", tmp_path, during=lambda one: one.kill("not wanted any more"))
    assert result == Result(fault="not wanted any more")


def test_its_standard_input_is_at_its_end(tmp_path: Path) -> None:
    assert ran("read line; echo $?; readlink /proc/self/fd/0", tmp_path)[0].lines == (
        "1",
        "/dev/null",
    )


def test_what_it_leaves_in_the_background_neither_holds_it_up_nor_stays(tmp_path: Path) -> None:
    result, _ = ran("sleep 600 & echo $! >pid; echo bye", tmp_path)
    assert result == Result(status=0, lines=("bye",))
    left = int((tmp_path / "pid").read_text())
    wait_until(partial(is_gone, left), what="the end of what it left")


def test_a_daemon_is_left_alone(tmp_path: Path) -> None:
    result, _ = ran("setsid sleep 600 >/dev/null 2>&1 & echo $! >pid; sleep 0.2", tmp_path)
    assert not result.fault
    daemon = int((tmp_path / "pid").read_text())
    assert is_alive(daemon)
    os.kill(daemon, 9)


def test_10_megabytes_are_read_to_their_end_and_cost_the_log_a_share(tmp_path: Path) -> None:
    result, log = ran("yes 0123456789abcdef | head -c 10200000; echo last", tmp_path)
    assert not result.fault
    assert len(result.lines) == 20
    assert result.lines[-1] == "last"
    assert len(log) < 4 * LOGGED_MAX
    assert "more lines that it printed are not in the log" in log


def adopted(output: int, *, alive: bool) -> tuple[Result, list[str]]:
    """Adopt a run of which only its output is left, if that; end it as soon as it is adopted."""

    async def run() -> Result:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Result] = loop.create_future()
        command = Command(NAME, context(Sink(), Family()), ended.set_result)
        command.adopt(None, output)
        command.kill("too late")  # nobody knows which process that would be
        if alive:
            await asyncio.sleep(0)
            assert not ended.done()
            os.close(theirs)
        return await asyncio.wait_for(ended, 60)

    ours, theirs = (output, -1) if not alive else os.pipe()
    output = ours
    if alive:
        os.write(theirs, b"last words\n")
    result = asyncio.run(run())
    return result, list(result.lines)


def test_one_whose_process_nobody_knows_is_gone_when_nobody_has_its_output() -> None:
    result, lines = adopted(-1, alive=True)
    assert result.fault == UNKNOWN
    assert lines == ["last words"]


def test_one_of_which_nothing_is_left_is_gone() -> None:
    assert adopted(-1, alive=False)[0] == Result(fault=UNKNOWN)

"""Replace the manager's own code in place: the same process, the same children, new code.

The new code is first proven in a child that reads the very state it will go on from; only then
does this process become it, by execve(2). Decides nothing about workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from sockmgr.errors import ControlError
from sockmgr.fleet.endings import describe_exit
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.kernel.process import Process, hand_on_bpf, withhold_bpf
from sockmgr.kernel.spawn import Launch, spawn
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.logs.output import Output
from sockmgr.manager.logs.sink import Sink

CHECK = "--check-state"
PROOF_TIMEOUT = 30.0
_HANDOFF = "SOCKMGR_HANDOFF"  # descriptors by name, as JSON, from one manager to itself
_OPEN_FILES = "SOCKMGR_OPEN_FILES"  # the soft limit that it was started with


class Proof:
    """Runs the new code in a child that reads the state; `pid` is 0 while there is no child."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.pid = 0

    async def take(self, state: int) -> None:
        """Return when the new code has read `state`, a borrowed memfd; else raise ControlError."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(Output("upgrade", self._sink, loop)) as output:
            try:
                process = Process(spawn(_check(state, output.writer)))
            finally:
                output.spawned()
            self.pid = process.pid
            reached(Point.PROOF_STARTED)
            ended = asyncio.Event()
            loop.add_reader(process.pidfd, ended.set)
            try:
                async with asyncio.timeout(PROOF_TIMEOUT):
                    await ended.wait()
                status = process.poll()
            except TimeoutError:
                status = None
                process.signal_group(9)  # new code that hangs would otherwise live as long as we do
            finally:
                loop.remove_reader(process.pidfd)
                process.close()
                self.pid = 0
        if status != 0:
            raise _unproven(status, output.tail)


def _check(state: int, writer: int) -> Launch:
    # Our own command line, so that the check meets the same interpreter, options and environment
    # as the upgrade itself will.
    verb = sys.orig_argv.index("run") + 1
    return Launch(
        argv=[sys.executable, *sys.orig_argv[1:verb], CHECK, "3", *sys.orig_argv[verb:]],
        executable=sys.executable,
        env=os.environ,
        cwd=str(Path.cwd()),
        fds=[state],
        set_listen_pid=False,
        stdout=writer,
        stderr=writer,
    )


def _unproven(status: int | None, words: Sequence[str]) -> ControlError:
    how = f"did not end within {PROOF_TIMEOUT:g} s" if status is None else describe_exit(status)
    # An error of sockmgr begins so; of a traceback the last line says what is wrong.
    told = [line.removeprefix("error: ") for line in words if line.startswith("error: ")]
    reason = "".join(f": {line}" for line in (told or words)[-1:])
    return ControlError(
        f"the new version {how} when it was to read the state{reason}",
        means="nothing was replaced; the manager goes on with the code that it runs",
        do="mend or reinstall sockmgr, then upgrade again; the manager's log has all it said",
    )


def become(descriptors: Mapping[str, Sequence[int]]) -> None:
    """Replace this process by the new code, which gets `descriptors`. Returns by raising only."""
    environ = dict(os.environ)
    environ[_HANDOFF] = json.dumps(descriptors)
    environ[_OPEN_FILES] = str(OpenFiles.given or "")
    for fds in descriptors.values():
        for fd in fds:
            os.set_inheritable(fd, True)
    hand_on_bpf()
    try:
        os.execve(sys.executable, sys.orig_argv, environ)  # noqa: S606 - our own command line again
    finally:
        withhold_bpf()  # execve(2) has failed: this code goes on


def inherited(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[int]]:
    """Return the descriptors that this process had before it became new code; the caller owns them.

    They are not inheritable any more. The limit of open files is raised to the hard limit again.
    """
    # Both are taken out of the environment, which workers inherit.
    given = environ.pop(_OPEN_FILES, "")
    OpenFiles.allow_all(int(given) if given.isdecimal() else None)
    found: dict[str, list[int]] = json.loads(environ.pop(_HANDOFF, "{}"))
    for fds in found.values():
        for fd in fds:
            os.set_inheritable(fd, False)
    return found

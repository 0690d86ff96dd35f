"""A readiness command: run beside its worker, again until it exits with 0. Owns its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.errors import SpawnError
from sockmgr.fleet.messages import describe_exit
from sockmgr.kernel.process import Process
from sockmgr.manager.logs.output import Output
from sockmgr.manager.logs.sink import Sink
from sockmgr.terminal.pieces import Piece

AGAIN_DELAY = 0.25
KILL_SIGNAL = 9


class ReadyCommand:
    """Starts the command by `start` (given the pipe to write to) and calls `done` at its yes."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[Output], Process],
        done: Callable[[], None],
    ) -> None:
        self._name, self._sink, self._loop = name, sink, loop
        self._start, self._done = start, done
        self._process: Process | None = None
        self._output: Output | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last = ""
        self._run()

    @property
    def pid(self) -> int:
        """The pid of the command that runs now, 0 between two runs."""
        return self._process.pid if self._process else 0

    @property
    def seen(self) -> str:
        """Say what it did last, for a worker that did not get ready."""
        return "it still runs" if self._process else self._last

    def close(self) -> None:
        """End it, whatever it is doing; what is left of it is reaped as a stray."""
        if self._timer:
            self._timer.cancel()
        if self._process:
            self._process.signal_group(KILL_SIGNAL)
            self._release()

    def _run(self) -> None:
        try:
            self._output = Output(self._name, self._sink, self._loop)
            self._process = self._start(self._output)
        except SpawnError as error:
            self._sink.lines(self._name, [Piece(error.what)])
            self._last = error.what
        finally:
            if self._output:
                self._output.spawned()
        if self._process:
            self._loop.add_reader(self._process.pidfd, self._on_exit)
        else:
            self._say_no()

    def _on_exit(self) -> None:
        status = self._process.poll() if self._process else None
        if status is None:
            return
        words = self._release()
        if status == 0:
            self._done()
        else:
            self._last = ": ".join([f"it {describe_exit(status)}", *words[-1:]])
            self._say_no()

    def _say_no(self) -> None:
        self._release()
        self._timer = self._loop.call_later(AGAIN_DELAY, self._run)

    def _release(self) -> tuple[str, ...]:
        """Let go of the process; return its last lines."""
        words: tuple[str, ...] = ()
        if self._process:
            self._loop.remove_reader(self._process.pidfd)
            self._process.close()
            self._process = None
        if self._output:
            self._output.close()
            words = self._output.tail
            self._output = None
        return words

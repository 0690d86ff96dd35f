"""The standard streams of a verb: they are always open, and writing to them never raises.

Output that cannot be written changes neither what a verb does nor its exit code, unless the output
is the purpose of the verb.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
from typing import Any, NoReturn, TextIO

import click

from sockmgr.cli.table import is_lively
from sockmgr.terminal.visible import visible


class StandardStream(io.FileIO):
    """Stdout or stderr, borrowed; keeps the first error and drops everything written after it."""

    trouble: OSError | None = None
    ends_with_trouble = False  # whether the process is to end once nothing can be written

    def write(self, data: Any) -> int:
        """Write some of `data`, or drop it all; return the number of bytes."""
        while self.trouble is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.trouble = error
                if self.ends_with_trouble:
                    raise SystemExit(1 if self.is_cut else 0) from None
            else:
                if written is not None:
                    return written
                # Another process that shares this open file has set O_NONBLOCK, and it is full.
                select.select([], [self], [])
        return memoryview(data).nbytes

    @property
    def is_cut(self) -> bool:
        """Whether a reader lacks some of the output; a reader that closed its end wants no more."""
        return self.trouble is not None and self.trouble.errno != errno.EPIPE


def open_missing() -> None:
    """Open /dev/null in the place of each standard descriptor that is closed.

    Call this before anything else is opened: a file or socket would get the free number 2, say, and
    all that is written to stderr with it.
    """
    for fd, mode in enumerate("rww"):
        try:
            os.fstat(fd)
        except OSError:
            # open(2) takes the lowest free number, which is `fd`.
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            os.set_inheritable(fd, True)
            text = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, ("stdin", "stdout", "stderr")[fd], text)


def make_tolerant() -> None:
    """Replace sys.stdout and sys.stderr by streams that never raise when they are written to."""
    sys.stdout, sys.stderr = _tolerant(sys.stdout), _tolerant(sys.stderr)


def _tolerant(stream: TextIO) -> TextIO:
    raw = StandardStream(stream.fileno(), "w", closefd=False)
    # backslashreplace: the locale may lack a character of ours (an arrow), a path may be no UTF-8.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or stream is sys.stderr,
    )


def echo(text: str, *, err: bool = False) -> None:
    """Write lines that may quote other programs; on a terminal only their colours take effect."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        colours = is_lively(stream)
        text = "\n".join(visible(line, colours=colours) for line in text.split("\n"))
    click.echo(text, err=err, color=True)  # without `color`, click strips escapes from files


def complain(text: str) -> None:
    """Write to stderr what a person is needed for; to the journal each line is an error."""
    if "JOURNAL_STREAM" in os.environ:
        from sockmgr.systemd import journald

        if journald.is_stderr():
            text = "\n".join(f"<3>{line}" for line in text.split("\n"))  # sd-daemon(3)
    echo(text, err=True)


def end_without_reader() -> None:
    """From now on, end this process when nobody reads its stdout, or when a write to it fails."""
    raw = _raw(sys.stdout)
    if raw is None:  # main() has not replaced it: click's test runner has
        return
    raw.ends_with_trouble = True
    threading.Thread(target=_wait_for_the_end_of_readers, args=[raw.fileno()], daemon=True).start()


def _wait_for_the_end_of_readers(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, 0)  # POLLERR and POLLHUP are always reported, poll(2)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll()):
        os._exit(0)


def finish(code: int, *, needs_output: bool) -> NoReturn:
    """End with this exit code, or with 1 if the output matters (`needs_output`) and is cut."""
    raw = _raw(sys.stdout)
    sys.stdout.flush()
    if raw and raw.trouble and raw.is_cut:
        sys.stderr.write(f"error: the output could not be written: {raw.trouble.strerror}\n")
        code = code or int(needs_output)
    sys.exit(code)


def _raw(stream: TextIO) -> StandardStream | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, StandardStream) else None

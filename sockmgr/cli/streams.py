"""The standard streams of a verb: always there, and never a reason to fail.

What cannot be written changes neither what a verb does nor its exit code, except where the output
is itself what was asked for.
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
    """One of stdout and stderr (borrowed): the first error is kept, and the rest is dropped."""

    trouble: OSError | None = None
    ends_with_trouble = False  # whether there is no sense in going on when nothing can be written

    def write(self, data: Any) -> int:
        """Write some of `data`, or pretend to."""
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
                # Whoever we share it with has made it non-blocking.
                select.select([], [self], [])
        return memoryview(data).nbytes

    @property
    def is_cut(self) -> bool:
        """Whether something is missing that somebody wants: a reader that left has had enough."""
        return self.trouble is not None and self.trouble.errno != errno.EPIPE


def open_missing() -> None:
    """Have /dev/null in the place of each standard descriptor that is closed.

    Call it before anything is opened, which would get its number, and what is written to stderr.
    """
    for fd, mode in enumerate("rww"):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free (open(2)), which is this one.
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            os.set_inheritable(fd, True)
            text = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, ("stdin", "stdout", "stderr")[fd], text)


def make_tolerant() -> None:
    """Write to stdout and stderr in such a way that no error comes of it."""
    sys.stdout, sys.stderr = _tolerant(sys.stdout), _tolerant(sys.stderr)


def _tolerant(stream: TextIO) -> TextIO:
    raw = StandardStream(stream.fileno(), "w", closefd=False)
    # A locale that lacks a character of ours (an arrow), or a name that is no text, shows its code.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or stream is sys.stderr,
    )


def tell(text: str, *, err: bool = False) -> None:
    """Write lines that others have a say in: a terminal gets none of their escapes but colours."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        colours = is_lively(stream)
        text = "\n".join(visible(line, colours=colours) for line in text.split("\n"))
    click.echo(text, err=err, color=True)  # else it would change what goes elsewhere


def end_without_reader() -> None:
    """End this process as soon as nobody reads what it writes, or when it cannot be written."""
    raw = _raw(sys.stdout)
    if raw is None:  # a test calls us
        return
    raw.ends_with_trouble = True
    threading.Thread(target=_wait_for_the_end_of_readers, args=[raw.fileno()], daemon=True).start()


def _wait_for_the_end_of_readers(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, 0)  # POLLERR and POLLHUP come in any case, poll(2)
    if any(told & (select.POLLERR | select.POLLHUP) for _, told in poll.poll()):
        os._exit(0)


def finish(code: int, *, needs_output: bool) -> NoReturn:
    """End with this exit code, or with 1 if the output was what mattered, and is not all there."""
    raw = _raw(sys.stdout)
    sys.stdout.flush()
    if raw and raw.trouble and raw.is_cut:
        sys.stderr.write(
            f"error: what was to be told could not be written: {raw.trouble.strerror}\n"
        )
        code = code or int(needs_output)
    sys.exit(code)


def _raw(stream: TextIO) -> StandardStream | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, StandardStream) else None

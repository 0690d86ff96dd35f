"""`sockmgr reload`: replace the workers and wait for the verdict."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click
import msgspec

from sockmgr.api.types import Progress, Receipt, Verdict
from sockmgr.cli import streams, target
from sockmgr.cli.table import is_lively
from sockmgr.launch import last_words
from sockmgr.terminal.visible import visible


@click.command("reload")
@click.argument(
    "services", nargs=-1, metavar="[SERVICE]...", shell_complete=target.complete_service
)
@target.options
def command(where: target.Target, services: tuple[str, ...]) -> None:
    """Replace the workers of each SERVICE (default: all) without losing a request.

    Waits for the outcome. Exit code 1: that of at least one service was aborted, and what served
    there before goes on serving.
    """
    client = where.find()
    last: dict[str, Progress] = {}
    with _narrator(as_json=where.as_json) as narrate:

        def on_progress(progress: Progress) -> None:
            last[progress.service] = progress
            narrate(progress)

        verdicts = [_whole(verdict) for verdict in client.reload(services, on_progress)]
    if where.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(verdicts)))
    else:
        for verdict in verdicts:
            prefix = f"{verdict.service}: " if len(verdicts) > 1 else ""
            for line in _tell(verdict, last.get(verdict.service)):
                streams.tell(prefix + line)
        if not verdicts:
            click.echo("there was nothing to reload")
    sys.exit(1 if any(verdict.verdict == "aborted" for verdict in verdicts) else 0)


# --- While it goes on ----------------------------------------------------------------------------


@contextlib.contextmanager
def _narrator(*, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    if as_json or not is_lively(sys.stderr):
        yield _plain_narrator()
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text("asking the manager")) as line:
        yield lambda progress: line.update(Text(visible(_describe(progress), colours=False)))


def _plain_narrator() -> Callable[[Progress], None]:
    """Return a narrator that says one line a phase, not one a worker."""
    said: set[tuple[str, int, str]] = set()

    def narrate(progress: Progress) -> None:
        phase = (progress.service, progress.generation, progress.phase)
        if phase not in said:
            said.add(phase)
            target.narrate(_describe(progress))

    return narrate


def _describe(progress: Progress) -> str:
    text = (
        f"{progress.service}: generation {progress.generation} {progress.phase}, "
        f"{progress.ready}/{progress.wanted} ready, {progress.seconds:.1f} s"
    )
    return f"{text}: {progress.message}" if progress.message else text


# --- When it has ended ---------------------------------------------------------------------------


def _whole(verdict: Verdict) -> Verdict:
    """Return a verdict with what the manager may not read in the journal, if we may."""
    if verdict.journal is None:
        return verdict
    from sockmgr.cli.journal import last_words

    words = last_words(verdict.journal, verdict.worker)
    return msgspec.structs.replace(verdict, output=(*words, *verdict.output[len(words) > 0 :]))


def _tell(verdict: Verdict, last: Progress | None) -> Iterator[str]:
    if verdict.verdict == "aborted":
        yield (
            f"generation {verdict.generation} aborted after {verdict.seconds:.1f} s: "
            f"{verdict.reason}"
        )
        yield verdict.stays
        yield from (f"  {line}" for line in verdict.output)
        if last_words.is_refused_code(verdict.output):
            yield f"{last_words.NO_CODE}: {last_words.ALLOW_CODE}"
        return
    if not verdict.kept:  # the service is gone, by the config
        receipt = verdict.receipt
        text = f"{verdict.reason}, in {verdict.seconds:.1f} s: {receipt.drained} drained"
        yield f"{text}, {receipt.killed} killed, {receipt.died} died"
        return
    text = f"generation {verdict.generation} is serving: "
    if last is not None and last.generation == verdict.generation:
        text += f"{last.ready}/{last.wanted} workers "
    text += f"in {verdict.seconds:.1f} s"
    yield "; ".join([text, *_draining(verdict.receipt)])
    receipt = verdict.receipt
    line = f"queue peak {receipt.queue_peak}, {receipt.overflows} overflows"
    killed = f", {receipt.killed} killed" if receipt.killed else ""
    died = f", {receipt.died} died in the drain" if receipt.died else ""
    yield f"{line}, cut-over {receipt.cutover}{killed}{died}"
    if receipt.finishing:
        number = f"{receipt.finishing} {'worker' if receipt.finishing == 1 else 'workers'}"
        yield f"{number} must end now: too many generations are draining (max_draining)"


def _draining(receipt: Receipt) -> Iterator[str]:
    """Say which older generations are still there."""
    if receipt.draining_generations is None and receipt.draining:  # of an earlier version
        yield f"older workers draining, {receipt.draining} left"
    for older in receipt.draining_generations or ():
        yield f"generation {older.generation} draining, {older.workers} left"

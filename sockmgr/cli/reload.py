"""`sockmgr reload`: replaces the workers and waits for the verdicts."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import click
import msgspec

from sockmgr.api.figures import Finding
from sockmgr.api.types import Progress, Receipt, Verdict
from sockmgr.api.varlink import PastGeneration
from sockmgr.cli import streams, target
from sockmgr.cli.table import is_lively
from sockmgr.client.connection import LostError, NoManagerError, StillWaitingError
from sockmgr.terminal.format import count
from sockmgr.terminal.visible import visible

NEXT_MANAGER = 60.0  # seconds for which whoever waits for a verdict waits for another manager
LOOK_AGAIN = 0.2  # seconds between two questions: nothing announces that a manager listens again


@click.command("reload")
@click.argument(
    "services", nargs=-1, metavar="[SERVICE]...", shell_complete=target.complete_service
)
@click.option(
    "--together", is_flag=True, help="All cut over when all are ready; all go back if one fails."
)
@click.option(
    "--canary",
    metavar="SHARE[,SHARE]...",
    help="First give the new workers only this share of the new connections: 10%, or 5%,25%,50%.",
)
@click.option("--for", "seconds", type=target.duration, help="How long each step takes.")
@click.option(
    "--hold", is_flag=True, help="Until sockmgr promote, or sockmgr abort: the last step, that is."
)
@target.options
def command(
    where: target.Target,
    services: tuple[str, ...],
    together: bool,
    canary: str | None,
    seconds: float | None,
    hold: bool,
) -> None:
    """Replace the workers of each SERVICE (default: all) without losing a request.

    Waits for the outcome; if it is interrupted, the rollout goes on. Exit code 1: the rollout of at
    least one service was aborted, and its workers from before go on serving.
    """
    steps = _steps(canary)
    client = where.find()

    def ask(news: Callable[[Progress], None]) -> Sequence[Verdict]:
        return client.reload(
            services, news, together=together, canary=steps, seconds=seconds, hold=hold or None
        )

    carry_out(where, ask)


def _steps(canary: str | None) -> tuple[int, ...] | None:
    if canary is None:
        return None
    from sockmgr.config.canary_keys import shares

    try:
        return shares([each.strip() for each in canary.split(",")])
    except ValueError as error:
        raise click.UsageError(f"--canary {canary} cannot be used; allowed: {error}") from None


def carry_out(
    where: target.Target,
    ask: Callable[[Callable[[Progress], None]], Sequence[Verdict]],
    wanted: str = "committed",
) -> NoReturn:
    """Have the manager do what `ask` asks for; tell how it goes and ends, and exit.

    The exit code is 0 if all verdicts are as `wanted`. If the manager is killed meanwhile, the next
    one is asked how the rollouts that were heard of have ended.
    """
    last: dict[str, Progress] = {}
    with _narrator(as_json=where.as_json) as narrate:

        def on_progress(progress: Progress) -> None:
            last[progress.service] = progress
            narrate(progress)

        try:
            verdicts = [_with_output(verdict) for verdict in ask(on_progress)]
        except LostError:
            if not last:
                raise
            target.narrate("the manager has left; waiting for the next one")
            ends = _ends(where, last)
            _tell_ends(ends, as_json=where.as_json)
            sys.exit(0 if all(each.verdict == wanted for each in ends) else 1)
    if where.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(verdicts)))
    else:
        back = [verdict for verdict in verdicts if verdict.failed]
        for verdict in [verdict for verdict in verdicts if not verdict.failed]:
            prefix = f"{verdict.service}: " if len(verdicts) > 1 else ""
            for line in _described(verdict, last.get(verdict.service)):
                streams.echo(prefix + line)
        for failed in dict.fromkeys(verdict.failed for verdict in back):
            stays = "; ".join(f"{one.service}: {one.stays}" for one in back if one.failed == failed)
            streams.echo(f"{failed} failed, so the others went back together: {stays}")
        if not verdicts:
            click.echo("there was nothing to reload")
    sys.exit(0 if all(verdict.verdict == wanted for verdict in verdicts) else 1)


# --- When the manager is killed meanwhile ---------------------------------------------------------


def _ends(where: target.Target, last: Mapping[str, Progress]) -> list[PastGeneration]:
    """Wait until the generations that `last` tells of have their verdicts from the next manager.

    It gives them by itself: a rollout has its own deadlines. Raises NoManagerError if there is no
    next manager for NEXT_MANAGER seconds, and StillWaitingError after the --timeout.
    """
    generations = {(service, progress.generation) for service, progress in last.items()}
    client, heard_at = where.client(), time.monotonic()
    deadline = math.inf if where.timeout is None else heard_at + where.timeout
    while True:
        try:
            known = client.history()
        except (NoManagerError, LostError):
            if time.monotonic() - heard_at >= NEXT_MANAGER:
                raise
        else:
            heard_at = time.monotonic()
            found = [each for each in known if (each.service, each.generation) in generations]
            if len(found) == len(generations) and all(each.verdict for each in found):
                return found
        if time.monotonic() >= deadline:
            raise StillWaitingError(
                "no verdict in time", means="the rollout goes on", do='see "sockmgr history"'
            )
        time.sleep(LOOK_AGAIN)


def _tell_ends(ends: Sequence[PastGeneration], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(ends)))
        return
    for each in ends:
        why = f": {each.reason}" if each.reason else ""
        streams.echo(f"{each.service}: generation {each.generation} {each.verdict}{why}")


# --- While it goes on ----------------------------------------------------------------------------


@contextlib.contextmanager
def _narrator(*, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    if as_json or not is_lively(sys.stderr):
        yield _plain_narrator()
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text("asking the manager")) as line:
        yield lambda progress: line.update(Text(visible(str(progress), colours=False)))


def _plain_narrator() -> Callable[[Progress], None]:
    """Return a narrator that prints a line for each phase or step, not one for each worker."""
    said: set[tuple[str, int, str, int]] = set()

    def narrate(progress: Progress) -> None:
        phase = (progress.service, progress.generation, progress.phase, progress.step)
        if phase not in said:
            said.add(phase)
            target.narrate(str(progress))

    return narrate


# --- When it has ended ---------------------------------------------------------------------------


def _with_output(verdict: Verdict) -> Verdict:
    """Add to a verdict the output that only the journal has, if we may read it there."""
    if verdict.journal is None:
        return verdict
    from sockmgr.cli.journal import last_words

    words = last_words(verdict.journal, verdict.worker)
    return msgspec.structs.replace(verdict, output=(*words, *verdict.output[len(words) > 0 :]))


def _described(verdict: Verdict, last: Progress | None) -> Iterator[str]:
    if verdict.verdict == "aborted":
        yield f"{_named(verdict)} aborted after {verdict.seconds:.1f} s: {verdict.reason}"
        if (canary := verdict.receipt.canary) and canary.finding is not Finding.WORSE:
            yield f"canary: {canary}"  # else the reason says so
        yield verdict.stays
        yield from (f"  {line}" for line in _once(verdict.output))
        from sockmgr.launch import last_words

        if last_words.is_refused_code(verdict.output):
            yield f"{last_words.NO_CODE}: {last_words.ALLOW_CODE}"
        return
    if not verdict.kept:  # the config no longer has the service
        receipt = verdict.receipt
        text = f"{verdict.reason}, in {verdict.seconds:.1f} s: {receipt.drained} drained"
        yield f"{text}, {receipt.killed} killed, {receipt.died} died"
        return
    text = f"{_named(verdict)} is serving"
    if last is not None and last.generation == verdict.generation:
        text += f": {last.ready}/{last.wanted} workers in {verdict.seconds:.1f} s"
    else:
        text += f" after {verdict.seconds:.1f} s"
    yield "; ".join([text, *_draining(verdict.receipt)])
    receipt = verdict.receipt
    line = f"queue peak {receipt.queue_peak}, {receipt.overflows} overflows"
    killed = f", {receipt.killed} killed" if receipt.killed else ""
    died = f", {receipt.died} died in the drain" if receipt.died else ""
    moved = f", {receipt.moved} connections moved" if receipt.moved else ""
    yield f"{line}, cut-over {receipt.cutover}{killed}{died}{moved}"
    yield from _warm_up(receipt)
    if canary := receipt.canary:
        yield f"canary: {canary}"
        if canary.finding is Finding.TOO_FEW and canary.wanted:
            came = f"{canary.requests} requests (old {canary.old_requests}) came"
            yield f"warning: the canary proved little: {came}, of {canary.wanted} wanted to each"
    if verdict.reason:
        yield verdict.reason
    if receipt.finishing:
        number = count(receipt.finishing, "worker")
        yield f"{number} must end now: too many generations are draining (max_draining)"


def _once(lines: Sequence[str]) -> Iterator[str]:
    """Yield each of these lines, but one that repeats once: an access log differs in the port."""
    for _, same in itertools.groupby(lines, lambda line: re.sub(r":\d+ ", ": ", line)):
        *others, last = same
        yield f"{last} ({len(others) + 1} times)" if others else last


def _warm_up(receipt: Receipt) -> Iterator[str]:
    if warm_up := receipt.warm_up:
        text = f"warmed up by {count(warm_up.requests, 'request')}"
        text += f": the first took up to {warm_up.first:.3f} s, the last {warm_up.last:.3f} s"
        if warm_up.failed:
            text += f"; {warm_up.failed} failed: no answer, or a 5xx (see sockmgr doctor)"
        yield text + ("; there was no time for all" if warm_up.is_cut else "")


def _named(verdict: Verdict) -> str:
    text = f"generation {verdict.generation}"
    text += f" (release {visible(verdict.release)})" if verdict.release else ""
    return text + (f", a rollback to {verdict.rollback}," if verdict.rollback else "")


def _draining(receipt: Receipt) -> Iterator[str]:
    if receipt.draining_generations is None and receipt.draining:  # the manager is older than we
        yield f"older workers draining, {receipt.draining} left"
    for older in receipt.draining_generations or ():
        yield f"generation {older.generation} draining, {older.workers} left"

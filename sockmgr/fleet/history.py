"""The generations that a service has had, and which of them it can go back to. Pure.

Bounded, for the state of a manager has it all: entries of the last generations, and a few specs, of
which equal ones are one. Instants are of CLOCK_MONOTONIC, so that a clock that is set changes no
duration; `began` alone is the time of day.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from sockmgr.api import wire
from sockmgr.api.varlink import PastGeneration
from sockmgr.config.spec import Listen, Rollout, Spec
from sockmgr.errors import ControlError
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Aborted, Action, Committed, Serving
from sockmgr.fleet.snapshot import as_json

ENTRIES_MAX = 50
SPECS_MAX = 6  # different ones; that of the generation that serves is one of them
REASON_MAX = 300  # characters; the verdict had them all
UNCHANGED = "nothing was changed"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """How a generation came: by "start", "reload" or "rollback"; "" if that is not known.

    `by` is who asked for it, `to` the generation that a rollback brings back, 0 without one.
    """

    kind: str = ""
    by: str = ""
    to: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `verdict` is "" while it has none; it served from `since` to `until`."""

    number: int
    origin: Origin
    began: float
    directory: str
    release: str = ""
    verdict: str = ""
    reason: str = ""
    since: float | None = None
    until: float | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A spec that was committed, the numbers of its generations, and the name of its release."""

    numbers: tuple[int, ...]
    spec: Spec
    release: str = ""

    def is_of(self, other: Spec, release: str) -> bool:
        """Return whether another generation ran the same, as far as that can be known."""
        named = bool(self.release and release)
        return _code(self.spec) == _code(other) and not (named and self.release != release)


class History:
    """What a service has run: call follow() with all that its fleet does."""

    def __init__(self, entries: Iterable[Entry] = (), kept: Iterable[Kept] = ()) -> None:
        self._entries = {entry.number: entry for entry in entries}
        self._kept = list(kept)  # the one that serves is the last one
        self._encoded: bytes | None = None

    # --- For the next manager --------------------------------------------------------------------

    @property
    def record(self) -> bytes:
        """The bytes from which read() makes the same history."""
        if self._encoded is None:
            # Specs have much in common, most of all the environment: together they take little
            # more than one of them, an eighth, and all of this is part of each state that is
            # written. zlib takes 0.1 MB, once, which that saves in its copies.
            both = {"entries": tuple(self._entries.values()), "kept": tuple(self._kept)}
            self._encoded = zlib.compress(bytes(as_json(both)))
        return self._encoded

    @classmethod
    def read(cls, record: bytes) -> History:
        """Return the history of a record, an empty one without; raise ValueError for a bad one."""
        if not record:
            return cls()
        try:
            both = json.loads(zlib.decompress(record))
            return cls(
                msgspec.convert(both["entries"], tuple[Entry, ...]),
                msgspec.convert(both["kept"], tuple[Kept, ...]),
            )
        except (*wire.UNREADABLE, zlib.error, LookupError, TypeError) as error:
            raise ValueError(str(error)) from None

    # --- What happens ----------------------------------------------------------------------------

    def follow(
        self, fleet: Fleet, actions: Iterable[Action], origin: Origin, now: float, wall: float
    ) -> list[Generation]:
        """Take what the fleet did; return the generations that have begun, each by `origin`."""
        found = [fleet.current, fleet.trial]
        begun = [each for each in found if each and each.number not in self._entries]
        for generation in begun:
            self._begin(generation, origin, wall)
        for action in actions:
            match action:
                case Serving() | Committed():
                    self._serves(fleet, action.generation, now)
                case Aborted():
                    self._change(
                        action.generation, verdict="aborted", reason=action.reason[:REASON_MAX]
                    )
        return begun

    def resume(self, fleet: Fleet, now: float, wall: float) -> list[Generation]:
        """Know the generations of a fleet that another manager ran; return those without a name.

        That manager may have kept no history, or died before it wrote of a generation.
        """
        # Of those that retire nothing says whether they were committed once.
        found = [each for each in (fleet.current, fleet.trial) if each]
        for generation in found:
            if generation.number not in self._entries:
                self._begin(generation, Origin(), wall - (now - generation.since))
        current = fleet.current
        if current and fleet.served and not self._entries[current.number].verdict:
            self._serves(fleet, current.number, current.since)
        return [each for each in found if not self._entries[each.number].release]

    def name(self, number: int, release: str) -> None:
        """Know what the release of a generation is called."""
        self._change(number, release=release)
        self._kept = [
            replace(each, release=release) if number in each.numbers else each
            for each in self._kept
        ]

    def _begin(self, generation: Generation, origin: Origin, wall: float) -> None:
        entry = Entry(
            number=generation.number, origin=origin, began=wall, directory=generation.spec.cwd
        )
        self._entries[generation.number] = entry
        # The one that serves stays, however many have failed to replace it.
        old = [n for n, each in self._entries.items() if not _serves(each)]
        for number in old[: max(0, len(self._entries) - ENTRIES_MAX)]:
            del self._entries[number]
        self._encoded = None

    def _serves(self, fleet: Fleet, number: int, now: float) -> None:
        for entry in list(self._entries.values()):
            if _serves(entry):
                self._change(entry.number, until=now)
        self._change(number, verdict="committed", since=now)
        if generation := fleet.generations.get(number):
            self._keep(number, generation.spec, self.release(number))

    def _keep(self, number: int, spec: Spec, release: str) -> None:
        same = [each for each in self._kept if each.is_of(spec, release)]
        numbers = (*(n for each in same for n in each.numbers if n in self._entries), number)
        others = [each for each in self._kept if each not in same]
        self._kept = [*others, Kept(numbers=numbers, spec=spec, release=release)][-SPECS_MAX:]
        self._encoded = None

    def _change(self, number: int, **fields: object) -> None:
        if entry := self._entries.get(number):
            self._entries[number] = replace(entry, **fields)
            self._encoded = None

    # --- What is asked ---------------------------------------------------------------------------

    def origin(self, number: int) -> Origin:
        """Return how a generation came."""
        return self._entries[number].origin if number in self._entries else Origin()

    @property
    def rollback(self) -> int:
        """The generation that the one that serves brings back, 0 if it is by the config."""
        return next((e.origin.to for e in self._entries.values() if _serves(e)), 0)

    def release(self, number: int) -> str:
        """Return what the release of a generation is called, "" if that is not known."""
        return self._entries[number].release if number in self._entries else ""

    def began(self, number: int) -> float | None:
        """Return the time of day at which a generation began, None if that is not known."""
        return self._entries[number].began if number in self._entries else None

    def told(self, service: str, now: float) -> Iterator[PastGeneration]:
        """Yield all generations, the oldest first."""
        kept = set(self._targets())
        for entry in self._entries.values():
            ended = now if entry.until is None else entry.until
            yield PastGeneration(
                service=service,
                generation=entry.number,
                began=entry.began,
                origin=entry.origin.kind,
                by=entry.origin.by,
                rollback=entry.origin.to,
                verdict=entry.verdict,
                reason=entry.reason,
                served=None if entry.since is None else round(ended - entry.since, 3),
                serves=_serves(entry),
                directory=entry.directory,
                release=entry.release,
                kept=entry.number in kept,
            )

    def target(self, current: Generation | None, to: int | None) -> tuple[int, Kept]:
        """Return the generation to go back to from `current`, and what is known of it.

        That is number `to`, or the last one that was committed before and ran something else.
        Raises ControlError if there is none.
        """
        running = next((k for k in self._kept if current and current.number in k.numbers), None)
        if to is not None:
            return to, self._given(to, running)
        found = next((each for each in reversed(self._kept) if each is not running), None)
        if found is None or current is None:
            raise ControlError(*self._nothing(current, running), means=UNCHANGED, do=self._do())
        return found.numbers[-1], found

    def _given(self, to: int, running: Kept | None) -> Kept:
        entry = self._entries.get(to)
        kept = next((each for each in self._kept if to in each.numbers), None)
        if kept and kept is not running:
            return kept
        if kept and to == kept.numbers[-1]:
            why = f"generation {to} is what runs"
        elif kept:
            why = _same(to, kept.numbers[-1], kept.spec)
        elif entry and entry.verdict == "aborted":
            why = f"generation {to} was aborted: {entry.reason}"
        elif entry and not entry.verdict:
            why = f"generation {to} was never committed"
        elif entry:
            why = f"how generation {to} was run is not kept any more"
        else:
            why = f"nothing is known of a generation {to}"
        raise ControlError(why, means=UNCHANGED, do=self._do())

    def _nothing(self, current: Generation | None, running: Kept | None) -> tuple[str]:
        if current is None:
            return ("no generation serves yet",)
        earlier = [n for n in running.numbers if n != current.number] if running else []
        if earlier:
            return (_same(earlier[-1], current.number, current.spec),)
        return (f"nothing is known of what ran before generation {current.number}",)

    def _do(self) -> str:
        if known := ", ".join(map(str, sorted(self._targets()))):
            return f"choose another one with --to: {known}; `sockmgr history` lists them"
        return "deploy the release that you want, and reload; a stop of the manager forgets all"

    def _targets(self) -> Iterator[int]:
        """Yield the generations that can be gone back to: all that ran something else than now."""
        serving = next((n for n, each in self._entries.items() if _serves(each)), 0)
        for kept in self._kept:
            if serving not in kept.numbers:
                yield from kept.numbers


def brought_back(number: int, was: Spec, current: Spec) -> Spec:
    """Return spec `was` of generation `number` as it is to replace `current`; raise ControlError.

    The number of workers and the rules of a rollout are no part of a release: they stay as they
    are. Its listeners must be those of now, for clients come to these.
    """
    now = {listen.name: listen for listen in current.listen}
    then = {listen.name: listen for listen in was.listen}
    if differences := sorted(_differences(then, now)):
        raise ControlError(
            f"generation {number} had other listeners: {'; '.join(differences)}",
            means=UNCHANGED,
            do="put them into the config as they were, with the release, and reload",
        )
    listen = tuple(now[each.name] for each in was.listen)
    # It has proven itself then, and whoever goes back wants all of it now: so it is no canary.
    back = replace(was, workers=current.workers, rollout=current.rollout, listen=listen)
    return back.trusted()


def _differences(then: dict[str, Listen], now: dict[str, Listen]) -> Iterator[str]:
    for name in then.keys() | now.keys():
        before, after = (each[name].address if name in each else None for each in (then, now))
        if before != after:
            yield f"{name} was {before or 'not there'}, and is {after or 'not there'}"


def _same(before: int, now: int, spec: Spec) -> str:
    return f"generation {before} ran what {now} runs: the same command in {spec.cwd}"


def _serves(entry: Entry) -> bool:
    return entry.since is not None and entry.until is None


def _code(spec: Spec) -> Spec:
    """Return a spec without what says nothing of the release."""
    return replace(spec, workers=1, rollout=Rollout(), listen=(), release=None)

"""The load of `sockmgr torture` for tests: modes as texts, any server here, and what came of it.

`python -m tests.torture` takes the same texts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

from sockmgr.torture.load import judge, mode, result
from sockmgr.torture.load.mode import MAX_CONNECTIONS, Kind, Mode
from sockmgr.torture.load.response import Reader, read_own
from sockmgr.torture.load.result import Outcome, Row, by_mode, latencies

MAX_RATE = 5_000.0
MAX_SECONDS = 600.0
FLOOR = 10  # answers without which a load says nothing: `not failed` holds of no request, too
PATIENCE = 10.0  # seconds that they may take when all else is done
KEPT_ALIVE_RACES = frozenset({Outcome.KA_LOST_RST, Outcome.KA_LOST_FIN})

DEFAULTS = {
    Kind.SHORT: Mode(kind=Kind.SHORT, rate=100),
    Kind.KA: Mode(kind=Kind.KA, rate=100, conns=16),
    Kind.KAT: Mode(kind=Kind.KAT, conns=16, think=0.01),
    Kind.SLOW: Mode(kind=Kind.SLOW, path="/slow", s=2.0, timeout=15.0),
    Kind.STREAM: Mode(kind=Kind.STREAM, path="/stream", s=4.0, timeout=20.0),
    Kind.HALF: Mode(kind=Kind.HALF, rate=10, s=0.6),
    Kind.UPLOAD: Mode(kind=Kind.UPLOAD, path="/upload", rate=5, s=0.7),
    Kind.WEBSOCKET: Mode(kind=Kind.WEBSOCKET, path="/ws", rate=5, s=1.5),
}

OPTIONS: dict[str, Any] = {
    each.name: type(each.default) for each in fields(Mode) if each.name != "kind"
}


def parse_mode(text: str) -> Mode:
    """Read `short:rate=100,timeout=5`."""
    name, _, options = text.partition(":")
    if name not in set(Kind):
        raise ValueError(f"no mode {name!r}; there are {', '.join(Kind)}")
    found = DEFAULTS[Kind(name)]
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in OPTIONS:
            raise ValueError(f"mode {name} has no option {key!r}; there are {', '.join(OPTIONS)}")
        changes: dict[str, Any] = {key: OPTIONS[key](value)}
        found = replace(found, **changes)
    if not (0 <= found.rate <= MAX_RATE and 0 < found.conns <= MAX_CONNECTIONS):
        raise ValueError(f"{text}: at most {MAX_RATE:g} requests/s and {MAX_CONNECTIONS} conns")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(mode.Target):
    """A server on this machine, by its address."""

    @classmethod
    def at_url(cls, url: str) -> Target:
        """Take `http://127.0.0.1:8000`; refuse whatever is not loopback."""
        parts = urlsplit(url)
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        if parts.scheme != "http" or parts.port is None:
            raise ValueError(f"{url}: want http://HOST:PORT")
        try:
            address = ipaddress.ip_address(host)
        except ValueError as error:
            raise ValueError(f"{url}: want an address, not a name") from error
        if not address.is_loopback:
            raise ValueError(f"{url}: this judge only ever loads 127.0.0.0/8 and ::1")
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return cls(family=family, address=(host, parts.port))

    @classmethod
    def at_path(cls, path: str) -> Target:
        """Take the path of a unix socket."""
        return cls(family=socket.AF_UNIX, address=path)


@dataclass(slots=True, kw_only=True)
class Result:
    """All rows of one run."""

    rows: list[Row] = field(default_factory=list)

    def select(
        self,
        *,
        modes: Iterable[str] | None = None,
        since: float = -math.inf,
        until: float = math.inf,
    ) -> list[Row]:
        """Return the rows of these modes that were due in [since, until)."""
        wanted = None if modes is None else frozenset(modes)
        return [
            row
            for row in self.rows
            if since <= row.scheduled < until and (wanted is None or row.mode in wanted)
        ]

    @property
    def answered(self) -> int:
        """How many requests were answered as they should."""
        return sum(row.outcome is Outcome.OK for row in self.rows)

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row.outcome is not Outcome.OK]

    @property
    def lost(self) -> list[Row]:
        """Failures, but for the race of a server that closes an idle connection just when the
        client uses it again (RFC 9112, 9.5): a client retries these, and no manager sees them."""
        return [row for row in self.failed if row.outcome not in KEPT_ALIVE_RACES]

    @property
    def races(self) -> list[Row]:
        """Requests lost to the idle close of a kept connection."""
        return [row for row in self.failed if row.outcome in KEPT_ALIVE_RACES]

    def failures(self) -> str:
        """Say how many failed, by mode and class: `short:reset0 2, ka:ka_lost_fin 1`, or `none`."""
        found = Counter(f"{row.mode}:{row.outcome}" for row in self.failed)
        return ", ".join(f"{name} {count}" for name, count in found.most_common()) or "none"

    def latencies(self, rows: Iterable[Row]) -> dict[str, float]:
        """Return p50, p90, p99, p99.9 and max of the answered ones among `rows`, in seconds."""
        return latencies(rows)

    def first_new(self, version: str, since: float) -> float:
        """Seconds from `since` to the end of the first answer of `version`; nan if none."""
        return result.first_new(self.rows, version, since)

    def last_old(self, version: str, since: float) -> float:
        """Seconds from `since` to the last *new connection* that another version answered."""
        return result.last_old(self.rows, version, since)

    def mixed(self) -> float:
        """Seconds for which, at worst, an older version still took new connections after a newer
        one had taken its first. Versions are numbers. Zero: every cut-over was one instant."""
        longest, newest = 0.0, 0
        first_at: dict[int, float] = {}
        answered = (row for row in self.rows if row.fresh and row.version)
        for row in sorted(answered, key=attrgetter("began")):
            version = int(row.version)
            if version > newest:
                newest, first_at[version] = version, row.began
            elif version < newest:
                newer = min(at for other, at in first_at.items() if other > version)
                longest = max(longest, row.began - newer)
        return longest

    @property
    def lag(self) -> float:
        """How late the judge itself was at worst, in seconds."""
        begun = (row.began - row.scheduled for row in self.rows if row.mode == "short")
        return max((late for late in begun if not math.isnan(late)), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary that `--json` prints."""
        return {
            "requests": len(self.rows),
            "failed": len(self.failed),
            "modes": by_mode(self.rows),
            "versions": dict(Counter(row.version for row in self.rows if row.version)),
            "pids": dict(Counter(row.pid for row in self.rows if row.pid)),
            "judge_lag": round(self.lag, 4),
        }

    def __str__(self) -> str:
        lines = [f"{len(self.rows)} requests, {len(self.failed)} failed"]
        for name, found in by_mode(self.rows).items():
            outcomes = ", ".join(f"{each} {count}" for each, count in found["outcomes"].items())
            times = ", ".join(f"{k} {v * 1000:.1f}" for k, v in found["seconds"].items())
            lines.append(f"  {name:8} {outcomes}" + (f"  ({times} ms)" if times else ""))
        return "\n".join(lines)


class Load(judge.Load):
    """Load from a thread of its own, for as long as the `with` block lasts.

        with Load(Target.at_url(url), ["short:rate=150", "slow"]) as load:
            …
        assert not load.result.lost

    Before it ends it goes on until there are `floor` answers, and fails if they do not come.
    """

    def __init__(
        self,
        target: mode.Target,
        modes: Iterable[str],
        *,
        drain: float = 10.0,
        floor: int = FLOOR,
        read: Reader = read_own,
    ) -> None:
        super().__init__(target, map(parse_mode, modes), drain=drain, read=read)
        self.result = Result(rows=self.rows)
        self._floor = floor

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.end()

    def stop(self) -> Result:
        """Send no more, wait for what is open, and return what was found."""
        self._go_on()
        self.end()
        if self.result.answered < self._floor:
            raise AssertionError(f"{self.result.answered} answers: {self.result.failures()}")
        return self.result

    def _go_on(self) -> None:
        """Send on until there are answers enough, if they come: a block may be short."""
        end = time.monotonic() + PATIENCE
        while self._thread.is_alive() and self.result.answered < self._floor:
            if time.monotonic() > end:
                return
            time.sleep(0.01)


async def load_for(
    seconds: float, target: mode.Target, modes: Iterable[Mode], *, drain: float = 10.0
) -> Result:
    """Load for so long, in this event loop."""
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"a run lasts at most {MAX_SECONDS:g} s")
    load = judge.Load(target, modes, drain=drain)
    asyncio.get_running_loop().call_later(seconds, load.enough.set)
    await load.run()
    return Result(rows=load.rows)

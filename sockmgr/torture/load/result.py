"""What the judge found: one row a request, counted by outcome and measured by time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any


class Outcome(StrEnum):
    """What became of one request. Everything but OK is a failure."""

    OK = "ok"
    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_ERR = "connect_err"
    RESET0 = "reset0"  # RST before a byte, on a fresh connection
    EMPTY = "empty"  # FIN before a byte, on a fresh connection
    RESET_MID = "reset_mid"  # RST inside the response
    TRUNC_MID = "trunc_mid"  # FIN inside the response
    KA_LOST_RST = "ka_lost_rst"  # RST after the request was sent on a kept connection
    KA_LOST_FIN = "ka_lost_fin"  # FIN after the request was sent on a kept connection
    HTTP_5XX = "http_5xx"
    HTTP_4XX = "http_4xx"
    TIMEOUT = "timeout"
    BAD_BODY = "bad_body"
    UNFINISHED = "unfinished"  # still open when the judge had to end
    NOENT = "noent"  # the path of the unix socket is not there
    BACKLOG_FULL = "backlog_full"  # connect(2) on a unix socket: EAGAIN
    LOCAL_LIMIT = "local_limit"  # no descriptor or no port left: the judge's own failure


KEPT_ALIVE_RACES = frozenset({Outcome.KA_LOST_RST, Outcome.KA_LOST_FIN})


@dataclass(slots=True, kw_only=True)
class Row:
    """One request. Instants are of time.monotonic(); `began` is when its journey started:
    the connect(2) of a fresh connection, the send of a kept one. `port` is the client's own: by it
    the process is found that has the other end; 0 on a unix socket."""

    mode: str
    scheduled: float
    outcome: Outcome = Outcome.UNFINISHED
    began: float = math.nan
    ended: float = math.nan
    fresh: bool = True
    port: int = 0
    pid: int = 0
    version: str = ""
    detail: str = ""

    @property
    def latency(self) -> float:
        """Seconds from the instant at which the request was due."""
        return self.ended - self.scheduled


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that `share` (0..1) of the values do not exceed; nan if none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.nan


@dataclass(slots=True, kw_only=True)
class Result:
    """All rows of one run, and what happened to connections between requests."""

    rows: list[Row] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)

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
        times = [row.latency for row in rows if row.outcome is Outcome.OK]
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: percentile(times, share) for name, share in shares.items()}

    def first_new(self, version: str, since: float) -> float:
        """Seconds from `since` to the end of the first answer of `version`; nan if none."""
        ends = (row.ended for row in self.rows if row.version == version and row.ended >= since)
        return min(ends, default=math.nan) - since

    def last_old(self, version: str, since: float) -> float:
        """Seconds from `since` to the last *new connection* that another version answered.

        nan if there was none. Zero or less cannot happen: only connections begun after count.
        """
        begins = (
            row.began
            for row in self.rows
            if row.fresh and row.began > since and row.version not in {version, ""}
        )
        return max(begins, default=math.nan) - since

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
        modes = sorted({row.mode for row in self.rows})
        return {
            "requests": len(self.rows),
            "failed": len(self.failed),
            "modes": {mode: self._mode(mode) for mode in modes},
            "versions": dict(Counter(row.version for row in self.rows if row.version)),
            "pids": dict(Counter(row.pid for row in self.rows if row.pid)),
            "events": dict(self.events),
            "judge_lag": round(self.lag, 4),
        }

    def _mode(self, mode: str) -> dict[str, Any]:
        rows = self.select(modes=[mode])
        times = {k: round(v, 5) for k, v in self.latencies(rows).items() if not math.isnan(v)}
        return {"outcomes": dict(Counter(str(row.outcome) for row in rows)), "seconds": times}

    def __str__(self) -> str:
        lines = [f"{len(self.rows)} requests, {len(self.failed)} failed"]
        for mode, found in self.as_dict()["modes"].items():
            outcomes = ", ".join(f"{name} {count}" for name, count in found["outcomes"].items())
            times = ", ".join(f"{k} {v * 1000:.1f}" for k, v in found["seconds"].items())
            lines.append(f"  {mode:8} {outcomes}" + (f"  ({times} ms)" if times else ""))
        if self.events:
            lines.append(
                "  between requests: " + ", ".join(f"{k} {v}" for k, v in self.events.items())
            )
        return "\n".join(lines)

"""What the judge found: one row a request, counted by outcome and measured by time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
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


def latencies(rows: Iterable[Row]) -> dict[str, float]:
    """Return p50, p90, p99, p99.9 and max of the answered ones among `rows`, in seconds."""
    times = [row.latency for row in rows if row.outcome is Outcome.OK]
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: percentile(times, share) for name, share in shares.items()}


def first_new(rows: Iterable[Row], version: str, since: float) -> float:
    """Return the seconds from `since` to the end of the first answer of `version`; nan if none."""
    ends = (row.ended for row in rows if row.version == version and row.ended >= since)
    return min(ends, default=math.nan) - since


def last_old(rows: Iterable[Row], version: str, since: float) -> float:
    """Return the seconds from `since` to the last *new connection* that another version answered.

    nan if there was none. Zero or less cannot happen: only connections begun after count.
    """
    begins = (
        row.began
        for row in rows
        if row.fresh and row.began > since and row.version not in {version, ""}
    )
    return max(begins, default=math.nan) - since


def by_mode(rows: Iterable[Row]) -> dict[str, Any]:
    """Return for each mode how many requests ended how, and the times of those answered."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.mode].append(row)
    return {mode: _summary(found[mode]) for mode in sorted(found)}


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    times = {name: round(each, 5) for name, each in latencies(rows).items() if not math.isnan(each)}
    return {"outcomes": dict(Counter(str(row.outcome) for row in rows)), "seconds": times}

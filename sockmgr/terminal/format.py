"""Sizes, durations and numbers of things as a person reads them at a glance. Pure."""

from __future__ import annotations

import re

_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")
_NAMES = {
    1e-6: "us", 1e-3: "ms", 1.0: "s sec second seconds", 60.0: "m min minute minutes",
    3600.0: "h hr hour hours", 86400.0: "d day days",
}  # fmt: skip
_UNITS = {"": 1.0} | {name: unit for unit, names in _NAMES.items() for name in names.split()}


def size(count: int) -> str:
    """Return a number of bytes: `48M`."""
    amount = float(count)
    for unit in ("B", "K", "M"):
        if amount < 1024:
            return f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.1f}G"


def span(text: str) -> float | None:
    """Return a time span of systemd.time(7) in seconds; None if it has a unit not known here."""
    parts = _SPAN.findall(text)
    if not parts or _SPAN.sub("", text).strip() or any(unit not in _UNITS for _, unit in parts):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def count(number: int, noun: str) -> str:
    """Return a number of things, with a noun whose plural ends in s: `1 worker`, `4 workers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def age(seconds: float) -> str:
    """Return a duration in its two largest units: `3m20s`."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 1:
        return f"{seconds:.0f}s"
    if hours < 1:
        return f"{int(minutes)}m{int(seconds % 60):02}s"
    if days < 1:
        return f"{int(hours)}h{int(minutes % 60):02}m"
    return f"{int(days)}d{int(hours % 24)}h"

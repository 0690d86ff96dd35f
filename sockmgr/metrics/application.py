"""Collects what workers count themselves with prometheus_client, summed up for each service.

Reads the files in their directories at each scrape, and asks no manager but for where it is: they
count on while there is none. Owns nothing. Workers can write anything there: an odd entry is left
out alone, and an odd file costs its own service its metrics.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from sockmgr.client.client import Client
from sockmgr.errors import SockmgrError
from sockmgr.programs.merge_metrics import ENDED, KIND, parse, read

PATIENCE = 2.0  # seconds that a scrape waits at most, and for no directory twice in a row
ROOM, _SAMPLE = 512 << 20, 512  # bytes that a service may take, and a sample does, about
_NAME = re.compile(r"(?!sockmgr_|sockmgr$)[a-zA-Z_:][\w:]*", re.ASCII)
_LABEL = re.compile(r"(?!__)[a-zA-Z_]\w*", re.ASCII)
_SUFFIXES = ("", "_total", "_sum", "_count", "_bucket")

_Key = tuple[str, str, tuple[tuple[str, str], ...], str]  # metric, sample, labels, help


class ApplicationCollector:
    """Reads beside the manager that `find` finds, or found last; `say` is told what it cannot."""

    def __init__(self, find: Callable[[], Client], say: Callable[[str], None]) -> None:
        self._find, self._say = find, say
        self._directory: Path | None = None
        self._locked: set[Path] = set()  # when they were last read

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once, with the services that have it as its label `service`."""
        try:
            self._directory = self._find().path.with_suffix(".metrics")
        except SockmgrError:  # the other collector tells of it
            if self._directory is None:
                return
        found: dict[str, Metric] = {}
        until = time.monotonic() + PATIENCE
        for directory in sorted(self._directory.glob("[!.]*/")):
            for metric in self._read(directory, until):
                samples, metric.samples = metric.samples, []
                for sample in samples:
                    labels = sample.labels
                    if "service" in labels:  # as Prometheus itself does with a label that it sets
                        labels["exported_service"] = labels["service"]
                    labels["service"] = directory.name
                found.setdefault(metric.name, metric).samples += samples
        yield from found.values()

    def _read(self, directory: Path, until: float) -> Iterable[Metric]:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # A worker can hold the lock for ever: that must not cost others each scrape.
                _lock(fd, 0.0 if directory in self._locked else until)
                self._locked.discard(directory)
                return _sums(fd)
            finally:
                os.close(fd)
        except (OSError, ValueError, struct.error) as error:
            if isinstance(error, BlockingIOError):
                self._locked.add(directory)
            self._say(f"the metrics in {directory} cannot be read: {error}")
            return ()


def _lock(directory: int, until: float) -> None:
    """Have nothing removed until the descriptor is closed; raise OSError if that takes too long."""
    while True:
        try:
            return fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # files of workers that have ended are being added up
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _sums(directory: int) -> Iterable[Metric]:
    with os.scandir(directory) as entries:  # a FIFO would be waited for
        files = [each.name for each in entries if each.is_file(follow_symlinks=False)]
    metrics: dict[str, Metric] = {}
    added: set[str] = set()
    room, look = ROOM, cache(_key)  # most workers have the same
    for file in sorted(files, key=lambda file: not file.endswith(ENDED)):
        kind = KIND.fullmatch(file)
        if kind is None or file in added:
            continue
        data = read(file, directory)
        found, names = parse(data)
        added.update(names if file.endswith(ENDED) else ())
        room -= len(data) + _SAMPLE * len(found)
        if room < 0:
            raise ValueError("there are too many")
        type_, _, mode = kind[1].partition("_")
        owner = (("pid", kind[2]),) if mode else ()
        for text, (value, at) in found.items():
            if key := look(text, type_):
                name, sample, labels, about = key
                metric = metrics.get(name) or metrics.setdefault(name, Metric(name, about, type_))
                metric._multiprocess_mode = mode  # type: ignore[attr-defined]
                metric.add_sample(sample, labels + owner, value, at)  # type: ignore[arg-type]
    # As merge() does, which would have taken keys of any shape.
    sums: Iterable[Metric] = MultiProcessCollector._accumulate_metrics(metrics, True)  # type: ignore[no-untyped-call]
    return sums


def _key(text: bytes, type_: str) -> _Key | None:
    """Return what it says; None if it cannot be exported, or has a name of sockmgr's own."""
    try:
        name, sample, labels, about = json.loads(text[4:])
        words = "".join((name, sample, about, *labels, *labels.values()))
        words.encode()  # JSON can have half a surrogate pair
        float(labels.get("le", 0) if type_ == "histogram" else 0)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    named = _NAME.fullmatch(name) and sample in {name + suffix for suffix in _SUFFIXES}
    fits = named and "\0" not in words and all(map(_LABEL.fullmatch, labels))
    return (name, sample, tuple(sorted(labels.items())), about) if fits else None

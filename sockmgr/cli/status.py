"""`sockmgr status`: what runs."""

from __future__ import annotations

import click
import msgspec

from sockmgr.api.types import ListenerStatus, ServiceStatus, Status, WorkerStatus
from sockmgr.cli import target
from sockmgr.cli.table import show
from sockmgr.kernel.steering import Choice
from sockmgr.terminal.format import age, size


@click.command("status")
@target.options
def command(where: target.Target) -> None:
    """Show the listeners, services and workers of a manager."""
    status = where.client().status()
    if where.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(status)))
        return
    _show(status)


def _show(status: Status) -> None:
    click.echo(f"manager pid {status.manager.pid}, sockmgr {status.manager.version}")
    show(
        ("LISTENER", "ADDRESS", "QUEUE", "CUT-OVER"),
        [
            (name, one.address, f"{one.queue}/{one.backlog}", _steering(one))
            for name, one in status.listeners.items()
        ],
    )
    show(
        ("SERVICE", "GENERATION", "STATE", "READY", "ROLLOUT"),
        [_service(name, one) for name, one in status.services.items()],
    )
    show(
        ("WORKER", "PID", "STATE", "LEASE", "OPEN", "MEMORY", "AGE"),
        [
            _worker(name, worker)
            for name, service in status.services.items()
            for worker in service.workers
        ],
    )


def _steering(listener: ListenerStatus) -> str:
    several = listener.choice != Choice.ONE
    return f"{listener.cutover}, {listener.choice}" if several else listener.cutover


def _service(name: str, service: ServiceStatus) -> tuple[str, ...]:
    ready = sum(
        worker.state == "ready" and worker.generation == service.generation
        for worker in service.workers
    )
    rollout = "-"
    if (trial := service.rollout) is not None:
        left = f", {max(trial.deadline, 0):.0f} s left"
        rollout = f"{trial.generation} {trial.phase}, {trial.ready}/{trial.wanted} ready{left}"
    return name, str(service.generation), service.state, str(ready), rollout


def _worker(service: str, worker: WorkerStatus) -> tuple[str, ...]:
    name = f"{service}@{worker.generation}.{worker.slot}"
    opened = "-" if worker.connections is None else str(worker.connections)
    return (
        name,
        str(worker.pid),
        worker.state,
        str(worker.lease),
        opened,
        size(worker.rss),
        age(worker.age),
    )

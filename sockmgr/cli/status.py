"""`sockmgr status`: what runs."""

from __future__ import annotations

import click
import msgspec

from sockmgr.cli import target
from sockmgr.cli.table import show
from sockmgr.core.report import ServiceStatus, Status, WorkerStatus


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
            (name, one.address, f"{one.queue}/{one.backlog}", one.cutover)
            for name, one in status.listeners.items()
        ],
    )
    show(
        ("SERVICE", "GENERATION", "STATE", "READY", "ROLLOUT"),
        [_service(name, one) for name, one in status.services.items()],
    )
    show(
        ("WORKER", "PID", "STATE", "MEMORY", "AGE"),
        [
            _worker(name, worker)
            for name, service in status.services.items()
            for worker in service.workers
        ],
    )


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
    return name, str(worker.pid), worker.state, _size(worker.rss), _age(worker.age)


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "K", "M"):
        if amount < 1024:
            return f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.1f}G"


def _age(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 1:
        return f"{seconds:.0f}s"
    if hours < 1:
        return f"{int(minutes)}m{int(seconds % 60):02}s"
    if days < 1:
        return f"{int(hours)}h{int(minutes % 60):02}m"
    return f"{int(days)}d{int(hours % 24)}h"

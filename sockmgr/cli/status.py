"""`sockmgr status`: prints the listeners, services and workers of a manager."""

from __future__ import annotations

import click
import msgspec

from sockmgr.api import types
from sockmgr.cli import target
from sockmgr.cli.table import show
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


def _show(status: types.Status) -> None:
    manager = status.manager
    end = ", stopping" if manager.stopping else ""
    click.echo(f"manager pid {manager.pid}, sockmgr {manager.version}{_dispatcher(manager)}{end}")
    show(
        ("LISTENER", "ADDRESS", "QUEUE", "CUT-OVER"),
        [
            (name, one.address, f"{one.queue}/{one.backlog}", _steering(one))
            for name, one in status.listeners.items()
        ],
    )
    show(
        ("SERVICE", "GENERATION", "STATE", "READY", "RELEASE", "ROLLOUT"),
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


def _dispatcher(manager: types.ManagerStatus) -> str:
    if manager.dispatcher is None:
        return ""
    if manager.dispatcher:
        return f", dispatcher pid {manager.dispatcher}"
    return ", no dispatcher: new connections wait"


def _steering(listener: types.ListenerStatus) -> str:
    several = listener.choice != types.ONE_QUEUE
    return f"{listener.cutover}, {listener.choice}" if several else listener.cutover


def _service(name: str, service: types.ServiceStatus) -> tuple[str, ...]:
    rollout = f"hook {service.hook}" if service.hook else "-"
    if (trial := service.rollout) is not None:
        phase, left = trial.phase, f", {trial.deadline or 0:.0f} s left"
        if trial.canary:
            phase, left = str(trial.canary), trial.canary.numbers
        named = f" ({trial.release})" if trial.release else ""
        ready = f"{trial.ready}/{trial.wanted} ready"
        rollout = f"{trial.generation}{named} {phase}, {ready}{left}"
    back = f" (rollback to {service.rollback})" if service.rollback else ""
    release = f"{service.release or '-'}{back}"
    slow = service.recycle_pause is not None
    state = f"{service.state} (recycles in vain)" if slow else service.state
    return name, str(service.generation), state, str(service.ready), release, rollout


def _worker(service: str, worker: types.WorkerStatus) -> tuple[str, ...]:
    opened = "-" if worker.connections is None else str(worker.connections)
    found = worker.probe or worker.recycle
    return (
        worker.name(service),
        str(worker.pid),
        f"{worker.state} ({found})" if found else worker.state,
        str(worker.lease),
        opened,
        size(worker.rss),
        age(worker.age),
    )

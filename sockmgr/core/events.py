"""What happens to a manager, by the constant messages of its records, for whoever looks for it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORKER = re.compile(r"(?P<service>.+)@(?P<generation>\d+)\.\d+(?: .*)?", re.DOTALL)


def event(message: str) -> str:
    """Return the name of what a constant message tells: `worker ended` is `worker-ended`."""
    return re.sub(r"[^a-z0-9]+", "-", message.lower()).strip("-")


def service_of(worker: str) -> str:
    """Return the service of a worker's name (`web@7.2`), or nothing."""
    found = _WORKER.fullmatch(worker)
    return found["service"] if found else ""


def generation_of(worker: str) -> str:
    """Return the generation in a worker's name (`web@7.2`), or nothing."""
    found = _WORKER.fullmatch(worker)
    return found["generation"] if found else ""


def subject(fields: Mapping[str, object]) -> str:
    """Return the service that a record with these fields is about, or nothing."""
    return str(fields.get("service") or service_of(str(fields.get("worker", ""))))

"""What older versions wrote as the state, made what this version would have written.

Workers go on over an upgrade, so each format that a version has written is read for ever.
"""

from __future__ import annotations

import math
from typing import Any


def upgraded(body: dict[str, Any], version: int) -> dict[str, Any]:
    """Return a state of format `version` in the newest one; raise what comes if it is none."""
    # One step for each format, so that a new format needs one function and no table of pairs.
    for upgrade in _UPGRADES[version - 1 :]:
        body = upgrade(body)
    return body


def _from_1(body: dict[str, Any]) -> dict[str, Any]:
    """Instants that never come were infinite, and a rollout was rolling by its numbers only."""
    for service in body["services"]:
        for generation in service["generations"]:
            generation["rolling"] = False
            # JSON has no infinity, though Python writes and reads it; stricter readers do not.
            for record in (generation, *generation["workers"]):
                for key, instant in record.items():
                    if isinstance(instant, float) and math.isinf(instant):
                        record[key] = None
    return body


def _from_2(body: dict[str, Any]) -> dict[str, Any]:
    """The workers of a generation shared one lease, but for those sent to empty another."""
    for service in body["services"]:
        for generation in service["generations"]:
            for worker in generation["workers"]:
                worker["rescue"] = worker["lease"] != generation["lease"]
    return body


def _from_3(body: dict[str, Any]) -> dict[str, Any]:
    """Keys that a config leaves out stood for other values, which that same config does not mean.

    If they stayed, each service would seem to be changed, and an upgrade would replace its workers.
    """
    for service in body["config"]["services"]:
        http, rollout = service.get("http", {}), service["rollout"]
        if http.get("trusted_proxies") == ["127.0.0.1", "::1"]:
            http["trusted_proxies"] = None
        guessed = service["ready"]["type"] == "Delay" and not service["listen"]
        if guessed and rollout["probation"] == 0.25:
            rollout["probation"] = 10.0
    return body


_UPGRADES = (_from_1, _from_2, _from_3)  # each to the format that came next

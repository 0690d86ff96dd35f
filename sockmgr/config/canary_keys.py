"""The keys of `canary`, and with which other keys of a service they cannot go together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from sockmgr.config import shape, values
from sockmgr.config.document import Value
from sockmgr.config.shape import BOOLEAN, TIMEOUT, Key, Shape
from sockmgr.config.spec import Accept, Canary, Listen, Rollout, Spec
from sockmgr.errors import ConfigError

_SHARE = r"0?[1-9]%|[1-9][0-9]%"
_SHARES = 'a share from "1%" to "99%", or several of them in an array, each above the one before'


def shares(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the percents of shares as they are written; raise ValueError unless they rise."""
    found = tuple(int(text[:-1]) if re.fullmatch(_SHARE, text) else 0 for text in texts)
    if not _rise(found):
        raise ValueError(_SHARES)
    return found


def _rise(steps: Sequence[int]) -> bool:
    rises = sorted(set(steps)) == list(steps)
    return rises and bool(steps) and 1 <= steps[0] <= steps[-1] <= 99


def _shares(value: Value) -> tuple[int, ...]:
    items = value.items(_SHARES) if isinstance(value.raw, list) else [value]
    texts = [item.text(_SHARES, _SHARE) for item in items]
    try:
        return shares(texts)
    except ValueError:
        raise value.wrong(_SHARES) from None


_ONE = shape.text(_SHARES, _SHARE).schema
KEYS = {
    "share": Key(
        Shape(
            _shares,
            {"anyOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1, "uniqueItems": True}]},
        ),
        "The share of new connections that goes to the new generation; an array is step by step.",
    ),
    "for": Key(TIMEOUT, "How long each step takes.", "30s"),
    "hold": Key(BOOLEAN, "The last step ends only by sockmgr promote, or sockmgr abort.", False),
    "check": Key(
        values.COMMAND,
        "A command that is run once in each step, and must exit with 0 before that ends.",
    ),
}
_FIELDS = {"share": "shares", "for": "seconds", "hold": "hold", "check": "check"}


def _canary(value: Value) -> Canary:
    if not isinstance(value.raw, dict):
        raise value.wrong('a table such as { share = "10%", for = "30s" }')
    keys = value.table(KEYS)
    if "share" not in keys:
        raise value.refused("has no share", do='add one, for example share = "10%"')
    fields: dict[str, Any] = {_FIELDS[key]: KEYS[key].read(entry) for key, entry in keys.items()}
    return Canary(**fields)


CANARY = Key(
    Shape(_canary, shape.table(KEYS, required=("share",))),
    "Have the new generation prove itself on a share of the new connections before it gets all.",
)


def obstacle(
    rollout: Rollout, workers: int, accept: Accept, listens: Sequence[Listen]
) -> tuple[str, str]:
    """Return why a service with this rollout can have no canary, and what to do; "" if it can."""
    canary = rollout.canary
    if canary is None:
        return "", ""
    if rollout.exclusive:
        return "needs the old workers beside the new ones, which exclusive forbids", "remove one"
    if not listens:
        return "is a share of new connections, and the service has no listener", "remove it"
    for listen in listens:
        # What else has only one queue (systemd's single socket, say) shows when it is open.
        traits = listen.address.traits
        if accept is not Accept.DISPATCH and traits.is_stream and not traits.is_internet:
            return (
                f"cannot be on the listener {listen.name}: all workers accept from one unix socket",
                'use accept = "dispatch" with a server that can, or remove the canary',
            )
    beside = min(rollout.surge.above(workers), workers)
    if canary.shares[-1] * workers > 100 * beside:
        return (
            f"would give {canary.shares[-1]} % of the connections to {beside} of {workers} workers "
            f"(surge = {rollout.surge})",
            "let the share be no larger than that of the workers, or raise surge",
        )
    return "", ""


def once(spec: Spec, steps: Sequence[int] | None, seconds: float | None, hold: bool | None) -> Spec:
    """Return a spec with what somebody asked for instead of its own canary (None: as it is).

    Raises ConfigError if that cannot be.
    """
    asked = {"shares": None if steps is None else tuple(steps), "seconds": seconds, "hold": hold}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if not given:
        return spec
    own = spec.rollout.canary
    if own is None and steps is None:
        raise ConfigError(
            f"service {spec.service} has no canary that could be changed",
            do="give it a share: --canary 10%",
        )
    if steps is not None and not _rise(steps):
        raise ConfigError(
            f"a canary cannot have the shares {list(steps)}", do=f"allowed: {_SHARES}"
        )
    canary = replace(own or Canary(shares=()), **given)
    rollout = replace(spec.rollout, canary=canary)
    why, do = obstacle(rollout, spec.workers, spec.accept, spec.listen)
    if why:
        raise ConfigError(f"a canary of service {spec.service} {why}", do=do)
    return replace(spec, rollout=rollout)

"""The configs of a schedule: a few services, each a little different in each of them.

A family is known by its number; its configs are what people deploy one after the other.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from msgspec.structs import replace

from sockmgr.config.app_keys import Http
from sockmgr.config.company import apart
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.hooks import Hook, Hooks
from sockmgr.config.spec import (
    SURGE_ALL,
    Accept,
    Address,
    Canary,
    Listen,
    Policy,
    Rollout,
    Scheme,
    Spec,
    Surge,
)
from sockmgr.errors import ConfigError
from sockmgr.launch.app import _moves

FAMILIES = 240
BROKEN = 3  # the exit status that means broken code

ADDRESSES = {
    "a": Address(scheme=Scheme.TCP, host="127.0.0.1", port=8001),
    "b": Address(scheme=Scheme.TCP, host="127.0.0.1", port=8002),
    "c": Address(scheme=Scheme.TCP, host="127.0.0.1", port=8003),
    "u": Address(scheme=Scheme.ABSTRACT, path="u"),
}
LISTENS = {name: Listen(name=name, address=at) for name, at in ADDRESSES.items()}
# Which listeners each service has. Later ones are what a config may turn into.
SHAPES: tuple[dict[str, str], ...] = (
    {"web": "a"},
    {"web": "ab"},
    {"web": "b"},
    {"web": "au"},
    {"web": "a", "api": "b"},
    {"web": "b", "api": "a"},
    {"web": "c", "api": "a"},
    {"api": "b"},
    {"web": "a", "api": "b", "job": ""},
    {"web": "u", "api": "b"},
)
ALONE, MANY = (0, 0, 0, 1, 2, 3), (4, 4, 4, 5, 5, 6, 7, 8, 9, 0)


@cache
def family(number: int) -> tuple[Config, ...]:
    """Return the configs of a family; the first is the one that it starts with."""
    dice = random.Random(number)
    alone = dice.random() < 0.5
    shapes = ALONE if alone else MANY
    accept = dice.choice([Accept.SHARED, Accept.SHARED, Accept.PER_WORKER, Accept.DISPATCH])
    together = not alone and dice.random() < 0.3
    speech = random.Random(f"http of {number}")
    is_app = speech.random() < 0.6
    found = [
        _config(dice, SHAPES[shapes[0] if not n else dice.choice(shapes)], n, accept, together)
        for n in range(6)
    ]
    return tuple(_spoken(each, speech, is_app=is_app) for each in found)


def _spoken(config: Config, dice: random.Random, *, is_app: bool) -> Config:
    """Say of each service how it speaks HTTP, by which connections may move between workers."""
    services = (
        replace(each, http=dice.choice(SPEECHES) if is_app else COMMAND) for each in config.services
    )
    return replace(config, services=tuple(services))


def _config(
    dice: random.Random, shape: dict[str, str], number: int, accept: Accept, together: bool
) -> Config:
    services = []
    for name, listen in shape.items():
        rollout = _rollout(dice)
        made = ServiceConfig(
            name=name,
            command=(f"v{number + 1}",),
            listen=tuple(listen),
            after=("web",) if name == "api" and "web" in shape and dice.random() < 0.4 else (),
            workers=dice.choice([1, 1, 1, 2, 2, 3]),
            ready_timeout=dice.choice([5.0, 60.0]),
            drain_timeout=dice.choice([2.0, 30.0, 30.0]),
            max_age=dice.choice([None, None, None, 30.0]),
            rollout=rollout,
            hooks=_hooks(dice),
            accept=accept if dice.random() < 0.8 else dice.choice(list(Accept)),
            policy=dice.choice(list(Policy)),
            max_connections=dice.choice([None, None, 1, 2]),
        )
        if (together and apart(rollout, made.workers)) or (rollout.canary and "u" in listen):
            made = ServiceConfig(name=name, command=made.command, listen=made.listen,
                                 after=made.after, workers=made.workers, accept=made.accept,
                                 rollout=Rollout(start_concurrency=2))  # fmt: skip
        services.append(made)
    used = sorted({each for listen in shape.values() for each in listen})
    return Config(
        listen=tuple(LISTENS[name] for name in used), services=tuple(services), together=together
    )


def _rollout(dice: random.Random) -> Rollout:
    canary = Canary(
        shares=dice.choice([(10,), (25, 50)]), seconds=5.0, hold=dice.random() < 0.3,
        check=dice.choice([(), ("./smoke",)]),
    )  # fmt: skip
    return Rollout(
        surge=dice.choice([SURGE_ALL, SURGE_ALL, SURGE_ALL, Surge(amount=1)]),
        probation=dice.choice([0.25, 0.25, 5.0]),
        max_failed_starts=dice.choice([1, 2, 3]),
        start_concurrency=dice.choice([1, 2, 8]),
        max_draining=dice.choice([0, 1, 4, 4]),
        exclusive=dice.random() < 0.08,
        canary=canary if dice.random() < 0.15 else None,
    )


def _hooks(dice: random.Random) -> Hooks:
    if dice.random() < 0.8:
        return Hooks()
    hook = Hook(argv=("./migrate",), timeout=dice.choice([3.0, 60.0]))
    return dice.choice([Hooks(before=hook), Hooks(ready=hook), Hooks(before=hook, ready=hook)])


# What decides whether workers may have each other's connections; those of a command never may.
COMMAND = Http(migrate=False)
SPEECHES = (*[Http()] * 6, Http(proxy_protocol=True, trusted_proxies=("10.0.0.0/8",)), COMMAND)
SPECS: dict[Any, Spec] = {}


def resolve(config: Config, service: ServiceConfig, *, is_missing: bool = False) -> Spec:
    """Do what sockmgr.launch does, without a look at any file; `is_missing`: the command is."""
    if is_missing:
        raise ConfigError(f"{service.command[0]}: no such program")
    listens = config.listens()
    mine = tuple(listens[name] for name in service.listen)
    if (found := SPECS.get((service, mine))) is None:
        found = SPECS[service, mine] = _resolved(service, mine)
    return found


def _resolved(service: ServiceConfig, listen: tuple[Listen, ...]) -> Spec:
    same = ("after", "workers", "ready", "ready_timeout", "drain_timeout", "max_age", "rollout",
            "hooks", "accept", "policy", "max_connections")  # fmt: skip
    if not listen and service.accept is not Accept.SHARED:
        same = tuple(key for key in same if key != "accept")
    return Spec(
        service=service.name,
        argv=service.command,
        executable=f"/bin/{service.command[0]}",
        cwd="/",
        listen=listen,
        broken_exits=frozenset({BROKEN}),
        moves=_moves(service, {}, None),
        **{key: getattr(service, key) for key in same},
    )

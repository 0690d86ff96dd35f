"""One service described on the command line: its options, and the config that they amount to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from sockmgr.errors import ConfigError

if TYPE_CHECKING:
    from sockmgr.config.config import Config

_OPTIONS = (
    click.option(
        "--listen", multiple=True, metavar="NAME=URL", help="A listener; may be repeated."
    ),
    click.option("--name", metavar="NAME", help="The name of this manager."),
    click.option("--workers", metavar="N", help="How many workers."),
    click.option("--cwd", metavar="DIR", help="The working directory of the workers."),
    click.option("--env", multiple=True, metavar="KEY=VALUE", help="A variable; may be repeated."),
    click.option("--ready", metavar="HOW", help="accepting, notify or delay=SECONDS."),
    click.option("--ready-timeout", metavar="TIME", help="In which a worker must be ready."),
    click.option("--stop-signal", metavar="SIGNAL", help="The signal that drains a worker."),
    click.option(
        "--drain-timeout", metavar="TIME", help="After which a draining worker is killed."
    ),
    click.option("--max-age", metavar="TIME", help="After which a worker is replaced."),
    click.option(
        "--surge", metavar="N", help="How many extra workers a rollout may run: all, 1, 25%."
    ),
    click.option("--probation", metavar="TIME", help="How long a generation is on trial."),
)


def options(verb: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


def read(
    name: str | None, listen: tuple[str, ...], command: tuple[str, ...], keys: Mapping[str, Any]
) -> Config:
    """Return the config with one service, which runs `command`; raise ConfigError."""
    from sockmgr.config.config import from_arguments

    values = {key: _value(key, keys[key]) for key in keys}
    return from_arguments(listen, command, name=name or "", keys=values)


def _value(key: str, text: Any) -> object:
    """Return the value that a config file would have for the option `key` with this `text`."""
    if key == "env":
        return dict(_pair(pair) for pair in text)
    if key == "ready" and text.startswith("delay="):
        return {"delay": _number(text.removeprefix("delay="))}
    return _number(text) if key not in ("cwd", "stop_signal") else text


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--env {text}: it has no value", do="write KEY=VALUE")
    return key, value

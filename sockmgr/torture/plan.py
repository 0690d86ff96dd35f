"""What is tortured and how, as the command line says. Reads nothing and starts nothing."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from sockmgr.errors import ConfigError

PLACEHOLDERS = ("pid", "port", "dir", "version")

_PLACE = re.compile(r"(?<!\$)\{(\w+)\}")  # a shell has ${NAME} for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A server on this machine, what changes it, and for how long it is loaded.

    `reload`, `stop`, `deploy` and `break_` are lines for a shell; "" is none. `waits`: the reload
    command ends when the reload is done, so an older version must not answer after that.
    """

    command: tuple[str, ...]
    port: int
    reload: str = ""
    waits: bool = False
    stop: str = "kill -TERM {pid}"
    own_app: bool = False
    deploy: str = ""
    break_: str = ""
    path: str = "/"
    expect: str = ""
    seconds: float = 4.0
    rate: float = 100.0
    timeout: float = 5.0
    start_timeout: float = 30.0
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("reload", "stop", "deploy", "break_"):
            _check(f"--{name.rstrip('_')}", getattr(self, name))
        if self.deploy and self.own_app:
            raise ConfigError(
                "--app deploys by itself, so --deploy has nothing to do", do="leave one of them out"
            )
        if self.break_ and not self.deploy:
            raise ConfigError(
                "--break leaves nothing that could mend what it broke", do="add --deploy COMMAND"
            )

    @property
    def deploys(self) -> bool:
        """Whether there is a way to put the next version in place."""
        return self.own_app or bool(self.deploy)

    @property
    def breaks(self) -> bool:
        """Whether there is a way to put a version in place that cannot be loaded."""
        return self.own_app or bool(self.break_)


def fill(text: str, **values: object) -> str:
    """Return `text` with the values of the placeholders that it has; others stay as they are."""
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), text)


def _check(option: str, text: str) -> None:
    for name in _PLACE.findall(text):
        if name not in PLACEHOLDERS:
            near = difflib.get_close_matches(name, PLACEHOLDERS, 1)
            hint = f"write {{{near[0]}}}" if near else "write one of those"
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise ConfigError(
                f"{option}: nobody knows what {{{name}}} is", means=f"there are {known}", do=hint
            )

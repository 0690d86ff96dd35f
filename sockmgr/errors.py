"""The kinds of failure that reach a person: what happened, what it means, what to do."""

from __future__ import annotations


class SockmgrError(Exception):
    """A failure with its consequence for the running service and its remedy, a line each."""

    def __init__(self, what: str, *, means: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.means = means
        self.do = do

    def __str__(self) -> str:
        return "\n  ".join(line for line in (self.what, self.means, self.do) if line)


class ConfigError(SockmgrError):
    """The configuration cannot be used."""


class ListenError(SockmgrError):
    """A socket cannot be opened, adopted or joined."""


class SpawnError(SockmgrError):
    """A worker cannot be started."""


class ControlError(SockmgrError):
    """The manager cannot be reached, or refused what it was asked."""

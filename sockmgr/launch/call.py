"""The command line of a known server: which server it is, its launcher and its options. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sockmgr.config import servers
from sockmgr.config.servers import Server
from sockmgr.launch import launchers
from sockmgr.launch.launchers import CommandLine


@dataclass(frozen=True, slots=True)
class Call:
    server: Server
    launch: CommandLine

    @property
    def name(self) -> str:
        """The name of the server, and of its preset."""
        return self.server.name

    @property
    def args(self) -> tuple[str, ...]:
        """The server's own arguments."""
        return self.launch.args

    def has(self, *options: str) -> bool:
        """Return whether one of `options` is given: `--option`, `--option=x`, `-o`, `-ox`."""
        return self.value(*options) is not None

    def value(self, *options: str) -> str | None:
        """Return the value of the last of `options` that is given; "" if it has none."""
        return last_value(self.args, options)


def recognise(argv: tuple[str, ...]) -> Call | None:
    """Return the known server that `argv` starts, through whatever launchers; None for others."""
    launch = launchers.read(argv)
    server = servers.named(launch.name, launch.args)
    return Call(server, launch) if server else None


def last_value(args: tuple[str, ...], options: tuple[str, ...]) -> str | None:
    """Return the value of the last of `options` in `args`, "" if it has none; None without one."""
    found = None
    for index, text in enumerate(args):
        following = args[index + 1] if index + 1 < len(args) else ""
        for option in options:
            if text == option:
                found = following
            elif text.startswith(f"{option}=") and option.startswith("--"):
                found = text.partition("=")[2]
            elif text.startswith(option) and not option.startswith("--"):
                found = text[2:]
    return found

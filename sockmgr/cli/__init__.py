"""The command `sockmgr`: parse, call, print, exit code. No policy.

Answers go to stdout, narration to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or config,
3 no manager, 4 timed out waiting (the operation goes on), 130 interrupted.
"""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType
from typing import Any, NoReturn

import click

from sockmgr import __version__
from sockmgr.cli import host, streams
from sockmgr.errors import ConfigError, SockmgrError

FAILED, USAGE, NO_MANAGER, STILL_WAITING, INTERRUPTED = 1, 2, 3, 4, 130

# The verbs whose purpose is their output, which goes into files: an incomplete output is a failure.
_PRINTING = ("metrics", "schema", "completions", "units", "init")

# The small ones that stand with others in one module, by their own names.
_TOGETHER = {
    "promote": "rollout", "abort": "rollout", "rollback": "rollout",
    "scale": "order", "restart-worker": "order", "stop": "order", "upgrade": "order",
}  # fmt: skip


class _Verbs(click.Group):
    """The verbs: each is the `command` of the module with its name, imported only when called."""

    names = (
        "run", "dev", "reload", "promote", "abort", "rollback", "status", "history", "top",
        "events", "metrics", "scale", "restart-worker", "logs", "stop", "health", "upgrade",
        "check", "doctor", "units", "schema", "completions", "init", "torture",
    )  # fmt: skip

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in self.names:
            return None
        name = cmd_name.replace("-", "_")
        module = _TOGETHER.get(cmd_name)
        command: click.Command = getattr(_module(module or name), name if module else "command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            host.check()
            return super().invoke(ctx)
        except SockmgrError as error:
            streams.complain(f"error: {error}")
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            # Not at the top: few runs are interrupted, and loading the interface takes a while.
            from sockmgr.api import varlink

            asked = ctx.invoked_subcommand in varlink.CHANGING
            rest = ": what the manager was asked to do goes on" if asked else ""
            click.echo(f"interrupted{rest}", err=True)
            ctx.exit(INTERRUPTED)


def _module(name: str) -> ModuleType:
    # A collector that is woken by each thousand definitions would take a tenth of a verb's time.
    gc.disable()
    try:
        return importlib.import_module(f"sockmgr.cli.{name}")
    finally:
        gc.enable()


def exit_code(error: SockmgrError) -> int:
    # Not at the top: a wrong usage needs no client.
    from sockmgr.client.connection import NoManagerError, StillWaitingError

    match error:
        case ConfigError():
            return USAGE
        case NoManagerError():
            return NO_MANAGER
        case StillWaitingError():
            return STILL_WAITING
        case _:
            return FAILED


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sockmgr")
def cli() -> None:
    """Run servers behind sockets that never close, and replace them without losing a request."""


def main() -> NoReturn:
    streams.open_missing()
    streams.make_tolerant()
    code = 0
    try:
        cli.main(prog_name="sockmgr")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    # The interpreter looks for garbage once more before it ends, which takes a sixth of a verb's
    # time: it passes over what is frozen.
    gc.freeze()
    streams.finish(code, needs_output=any(verb in _PRINTING for verb in sys.argv[1:2]))

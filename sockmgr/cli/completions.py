"""`sockmgr completions`: prints the script by which a shell completes commands of sockmgr."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completions")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes verbs, options and services in a shell.

    For this session, or in ~/.bashrc or ~/.zshrc (there after compinit):

    \b
    eval "$(sockmgr completions bash)"
    eval "$(sockmgr completions zsh)"
    sockmgr completions fish | source

    For all sessions:

    \b
    sockmgr completions bash > ~/.local/share/bash-completion/completions/sockmgr
    sockmgr completions zsh > DIRECTORY/_sockmgr      (one of $fpath)
    sockmgr completions fish > ~/.config/fish/completions/sockmgr.fish
    """
    from sockmgr.cli import cli

    if kind := get_completion_class(shell):
        click.echo(kind(cli, {}, "sockmgr", "_SOCKMGR_COMPLETE").source())

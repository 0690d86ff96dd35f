"""The programs that each exec the next one, the last of them being the one that is started."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sockmgr.kernel.spawn.launch import Launch
from sockmgr.kernel.spawn.util_linux import identity, limits

SHELL = "/bin/sh"
ENV = "/usr/bin/env"

# Variables that a shell drops (no identifiers), changes or refuses to take over; dash(1), bash(1).
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OF_THE_SHELL = frozenset({
    "IFS", "OPTIND", "OPTARG", "OPTERR", "PPID", "LINENO", "UID", "EUID", "GROUPS", "SHELLOPTS",
    "BASHOPTS", "BASHPID", "BASH_VERSINFO", "FUNCNAME", "DIRSTACK", "PIPESTATUS", "RANDOM",
    "SRANDOM", "SECONDS", "HISTCMD", "POSIXLY_CORRECT",
})  # fmt: skip
# Those it sets by itself; env(1) puts them right again.
_SET_BY_A_SHELL = ("PWD", "OLDPWD", "SHLVL", "_")


def chain(launch: Launch) -> list[str]:
    """Return the command line that ends in the program, or just the program's if that will do."""
    program = [launch.path, *launch.argv[1:]]
    before = [*limits(launch), *identity(launch)]
    moves = not _is_here(launch.cwd)
    if not (launch.set_listen_pid or moves or launch.umask is not None):
        return [*before, *program]
    if _shell_will_do(launch):
        # As the worker's user: root may be a stranger in the worker's directory (NFS).
        return [*before, *_shell(launch), *program]
    # First, because the worker's user need not be able to read our Python.
    return [*_launcher(launch), *before, *program]


def _shell_will_do(launch: Launch) -> bool:
    there = os.access(SHELL, os.X_OK) and os.access(ENV, os.X_OK)
    # env(1) would take a program with '=' in its path for a variable.
    return there and "=" not in launch.path and all(map(_survives_a_shell, launch.env))


def _survives_a_shell(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _OF_THE_SHELL


def _shell(launch: Launch) -> list[str]:
    # Values are positional parameters, so nothing in them is ever code.
    steps, values = ['cd -P -- "$1"', "shift"], [launch.cwd]
    if launch.umask is not None:
        steps += ['umask "$1"', "shift"]
        values.append(f"{launch.umask:04o}")
    for name in _SET_BY_A_SHELL:
        values += [] if name in launch.env else ["-u", name]
    values += [f"{name}={launch.env[name]}" for name in _SET_BY_A_SHELL if name in launch.env]
    listen_pid = "LISTEN_PID=$$ " if launch.set_listen_pid else ""
    steps.append(f'{listen_pid}exec {ENV} "$@"')
    return [SHELL, "-c", " && ".join(steps), "sh", *values]


def _launcher(launch: Launch) -> list[str]:
    """The same in Python, ten times as slow, for an environment that no shell hands on whole."""
    script = str(Path(__file__).parents[2] / "exec.py")
    options = [f"--chdir={launch.cwd}"]
    if launch.umask is not None:
        options.append(f"--umask={launch.umask:04o}")
    if not launch.set_listen_pid:
        options.append("--keep-listen-pid")
    return [sys.executable, "-I", "-S", script, *options, "--"]


def _is_here(directory: str) -> bool:
    return Path(directory).samefile(".")

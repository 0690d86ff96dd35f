"""The chain of programs by which a worker is started: each execs the next one.

They set what posix_spawn(3) cannot: limits, the user, the directory, the umask and LISTEN_PID.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sockmgr.kernel.spawn.launch import Launch
from sockmgr.kernel.spawn.util_linux import identity, limits

SHELL = "/bin/sh"
ENV = "/usr/bin/env"

# A shell hands on no variable whose name is not an identifier, and not these: dash(1), bash(1).
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OF_THE_SHELL = frozenset({
    "IFS", "OPTIND", "OPTARG", "OPTERR", "PPID", "LINENO", "UID", "EUID", "GROUPS", "SHELLOPTS",
    "BASHOPTS", "BASHPID", "BASH_VERSINFO", "FUNCNAME", "DIRSTACK", "PIPESTATUS", "RANDOM",
    "SRANDOM", "SECONDS", "HISTCMD", "POSIXLY_CORRECT",
})  # fmt: skip
# A shell sets these by itself; env(1) restores them.
_SET_BY_A_SHELL = ("PWD", "OLDPWD", "SHLVL", "_")


def chain(launch: Launch) -> list[str]:
    """Return the command line that ends in the program: with a chain before it if one is needed."""
    program = [launch.path, *launch.argv[1:]]
    before = [*limits(launch), *identity(launch)]
    moves = not Path(launch.cwd).samefile(".")
    if not (launch.set_listen_pid or moves or launch.umask is not None):
        return [*before, *program]
    if _shell_will_do(launch):
        # The shell runs as the worker's user: on NFS root may not enter the worker's directory.
        return [*before, *_shell(launch), *program]
    # Our Python comes first, because the worker's user need not be able to read it.
    return [*_launcher(launch), *before, *program]


def _shell_will_do(launch: Launch) -> bool:
    there = os.access(SHELL, os.X_OK) and os.access(ENV, os.X_OK)
    # env(1) would take a program with '=' in its path for a variable.
    return there and "=" not in launch.path and all(map(_survives_a_shell, launch.env))


def _survives_a_shell(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _OF_THE_SHELL


def _shell(launch: Launch) -> list[str]:
    # Values are positional parameters, so that the shell never takes them for code.
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
    """Do the same in Python, ten times as slowly, for an environment that no shell hands on."""
    script = str(Path(__file__).parents[2] / "exec.py")
    options = [f"--chdir={launch.cwd}"]
    if launch.umask is not None:
        options.append(f"--umask={launch.umask:04o}")
    if not launch.set_listen_pid:
        options.append("--keep-listen-pid")
    return [sys.executable, "-I", "-S", script, *options, "--"]

"""Find the file of a program's name, and see whether it can be run. Starts nothing."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel import regular


def find(program: str, env: Mapping[str, str], cwd: str) -> str | None:
    """Return the file that execvpe(3) would run for `program`, None if there is none.

    After the directories of PATH the directory of our own interpreter is searched, for a server in
    the virtual environment of sockmgr, whether or not that is activated: but not for a release that
    has its own, below `cwd` or not the one in which we were started, which has its packages.
    """
    if "/" in program:
        return str(Path(cwd, program)) if runs(Path(cwd, program)) else None
    home = env.get("VIRTUAL_ENV", "")
    has_own = home and (home.startswith(f"{cwd}/") or home != os.environ.get("VIRTUAL_ENV"))
    ours = () if has_own else (str(Path(sys.executable).parent),)
    for folder in (*env.get("PATH", os.defpath).split(os.pathsep), *ours):
        path = Path(cwd, folder, program)
        if runs(path):
            return str(path)
    return None


def runs(path: Path) -> bool:
    """Return whether this is a program that we may run."""
    # access(2) first: Path.is_file() raises where a directory above may not be entered.
    return os.access(path, os.X_OK, effective_ids=True) and path.is_file()


def executable(shown: str, program: str, env: Mapping[str, str], cwd: str) -> str:
    """Return the file of `program`, in its real directory; raise SpawnError if it cannot run.

    `shown` is the key of the config that names the program, for the error.
    """
    found = find(program, env, cwd)
    if found is None:
        raise _not_found(shown, program, env, cwd)
    # The directory is resolved, like cwd, but not the last name: `python` in a virtual environment
    # is a link to an interpreter that would not use the environment.
    path = Path(os.path.realpath(Path(found).parent), Path(found).name)
    interpreter = _interpreter(path)
    if interpreter and find(interpreter, env, cwd) is None:
        raise SpawnError(
            f"{shown}: the first line of {path} names {interpreter}, which is not there",
            do="correct that line, or build the environment it belongs to anew",
        )
    return str(path)


def _not_found(shown: str, program: str, env: Mapping[str, str], cwd: str) -> SpawnError:
    if "/" not in program:
        path = env.get("PATH", os.defpath)
        return SpawnError(
            f"{shown}: {program} is not in the PATH of the workers ({path})",
            do="install it, give its full path, or set PATH in env",
        )
    file = Path(cwd, program)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        points = f", to which {file} points," if file.is_symlink() else ""
        return SpawnError(
            f"{shown}: {os.path.realpath(file)}{points} does not exist",
            do="correct the command; a relative one is looked for in cwd",
        )
    except OSError as error:
        return SpawnError(f"{shown}: {file}: {error.strerror}", do="correct the command")
    if stat.S_ISDIR(mode):
        return SpawnError(f"{shown}: {file} is a directory", do="name a program")
    return SpawnError(f"{shown}: {file} is not executable", do=f"chmod +x {file}")


def _interpreter(path: Path) -> str | None:
    """Return the program in a script's first line, None without one; for `env NAME` it is NAME."""
    try:
        words = regular.interpreter(path)
    except OSError:  # executable but not readable: the kernel decides
        return None
    if words and Path(words[0]).name == "env":
        named = (word for word in words[1:] if not word.startswith("-") and "=" not in word)
        return next(named, words[0])
    return words[0] if words else None

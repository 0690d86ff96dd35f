"""Check before the start whether a program can be started, for a clear error.

The shell that execs the program reports no errno, but exits with 126 or 127, as the program may.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel.regular import interpreter
from sockmgr.kernel.spawn.launch import Launch


def check_directory(launch: Launch) -> None:
    """Raise SpawnError if the working directory cannot be entered."""
    try:
        mode = Path(launch.cwd).stat().st_mode
    except OSError as error:
        raise SpawnError(
            f"cannot enter the working directory {launch.cwd}: {reason(error)}",
            do="create it, or correct cwd",
        ) from error
    if not Path(launch.cwd).is_absolute():
        raise SpawnError(f"the working directory {launch.cwd!r} is not an absolute path")
    if not stat.S_ISDIR(mode):
        raise SpawnError(f"the working directory {launch.cwd} is not a directory", do="correct cwd")


def check_executable(launch: Launch) -> None:
    """Raise SpawnError if the kernel would not run the file."""
    path = launch.path
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        do = "install it, or correct the command or its PATH"
        raise SpawnError(f"command not found: {path}", do=do) from error
    except OSError as error:
        raise SpawnError(f"cannot run {path}: {reason(error)}") from error
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise SpawnError(f"cannot run {path}: it is {what}", do="correct the command")
    if not os.access(path, os.X_OK, effective_ids=True):
        do = f"chmod +x {path}, or look for a noexec mount"
        raise SpawnError(f"cannot run {path}: it is not executable by the manager's user", do=do)
    _check_interpreter(launch, path)


def _check_interpreter(launch: Launch, path: str) -> None:
    try:
        words = interpreter(path)
    except OSError:  # executable but not readable: the kernel decides
        return
    if words and not Path(launch.cwd, words[0]).exists():
        raise SpawnError(
            f"cannot run {path}: its interpreter {words[0]!r} does not exist",
            do="correct the first line of the file, or build the environment it is part of anew",
        )


def reason(error: OSError) -> str:
    """Return the text of an errno, for the middle of a sentence."""
    return os.strerror(error.errno).lower() if error.errno else str(error)

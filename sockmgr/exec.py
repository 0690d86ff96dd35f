"""`python -m sockmgr.exec COMMAND…`: become COMMAND, with LISTEN_PID set to our own pid.

For wrappers that change the pid (`uv run`, `npm`): put this last, before the server, so that
LISTEN_PID (sd_listen_fds(3)) names the process that serves. Starts nothing: the process stays the
same. Imports as little as it can (no typing, no signal: each doubles the time it takes).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

USAGE = """usage: python -m sockmgr.exec [OPTION...] [--] COMMAND [ARGUMENT...]
  --chdir=DIRECTORY    start it in DIRECTORY
  --umask=MODE         with this umask (octal)
  --keep-listen-pid    leave LISTEN_PID as it is"""


def _environment() -> dict[bytes, bytes]:
    # What exec gave us, not os.environ: Python adds LC_CTYPE in the C locale (PEP 538).
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {name: value for name, _, value in pairs}


def _refuse(status: int, text: str) -> int:
    sys.stderr.write(f"sockmgr.exec: {text}\n")
    return status


def main(argv: list[str]) -> int:
    """Apply the options, then exec; return what a shell would (2, 126, 127) if that failed."""
    argv = list(argv)
    environ = _environment()
    listen_pid = {b"LISTEN_PID": b"%d" % os.getpid()}
    while argv and argv[0].startswith("-"):
        option, _, value = argv.pop(0).partition("=")
        try:
            if option == "--chdir":
                os.chdir(value)
            elif option == "--umask":
                os.umask(int(value, 8))
            elif option == "--keep-listen-pid":
                listen_pid = {}
            elif option == "--":
                break
            else:
                return _refuse(2, f"unknown option {option}\n{USAGE}")
        except (OSError, ValueError) as error:
            return _refuse(2, f"{option}={value}: {error}")
    if not argv:
        return _refuse(2, f"no command given\n{USAGE}")
    # Python ignores these two, and exec keeps what is ignored (signal(7)).
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environ | listen_pid)  # noqa: S606 - a shell is not wanted
    except FileNotFoundError as error:
        return _refuse(127, f"cannot run {argv[0]}: {error.strerror}")
    except (OSError, ValueError) as error:
        return _refuse(126, f"cannot run {argv[0]}: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

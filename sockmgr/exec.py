"""`python -m sockmgr.exec COMMAND…`: become COMMAND, with LISTEN_PID set to our own pid.

For wrappers that change the pid (`uv run`, `npm`): put this last, before the server, so that
LISTEN_PID (sd_listen_fds(3)) names the process that serves. Needs nothing but the standard library,
and starts nothing: the process stays the same.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

USAGE = """usage: python -m sockmgr.exec [OPTION...] [--] COMMAND [ARGUMENT...]
  --chdir=DIRECTORY    start it in DIRECTORY
  --umask=MODE         with this umask (octal)
  --keep-listen-pid    leave LISTEN_PID as it is"""


def _fail(status: int, text: str) -> NoReturn:
    sys.stderr.write(f"sockmgr.exec: {text}\n")
    raise SystemExit(status)


def _environment() -> dict[bytes, bytes]:
    # What exec gave us, not os.environ: Python adds LC_CTYPE in the C locale (PEP 538).
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {name: value for name, _, value in pairs}


def main(argv: list[str]) -> NoReturn:
    """Apply the options, then exec; exit as a shell would (2, 126, 127) if that is impossible."""
    argv = list(argv)
    environ = _environment()
    environ[b"LISTEN_PID"] = b"%d" % os.getpid()
    try:
        while argv and argv[0].startswith("-"):
            option, _, value = argv.pop(0).partition("=")
            if option == "--chdir":
                os.chdir(value)
            elif option == "--umask":
                os.umask(int(value, 8))
            elif option == "--keep-listen-pid":
                environ = _environment()
            elif option == "--":
                break
            else:
                _fail(2, f"unknown option {option}\n{USAGE}")
    except (OSError, ValueError) as error:
        _fail(2, f"{option}={value}: {error}")
    if not argv:
        _fail(2, f"no command given\n{USAGE}")
    # Python ignores these two, and exec keeps what is ignored (signal(7)).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environ)  # noqa: S606 - no shell is what is wanted
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        _fail(127 if missing else 126, f"cannot run {argv[0]}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])

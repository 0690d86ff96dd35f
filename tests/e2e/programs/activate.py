"""Become a command, with sockets passed to it as systemd passes them: sd_listen_fds(3).

activate.py CLAIM NAME=HOST:PORT... -- COMMAND...

CLAIM is how many LISTEN_FDS says there are; "all" is the truth.
"""

from __future__ import annotations

import os
import socket
import sys

FIRST_FD = 3


def main() -> None:
    """Bind, describe the sockets in the environment, and exec."""
    claim, *rest = sys.argv[1:]
    divider = rest.index("--")
    given, command = rest[:divider], rest[divider + 1 :]
    listeners = []
    for fd, text in enumerate(given, FIRST_FD):
        host, _, port = text.partition("=")[2].rpartition(":")
        listeners.append(socket.create_server((host, int(port))))
        os.set_inheritable(listeners[-1].fileno(), True)
        if listeners[-1].fileno() != fd:
            sys.exit(f"descriptor {fd} is taken: the sockets would not stand where systemd's do")
    os.environ["LISTEN_FDS"] = str(len(given)) if claim == "all" else claim
    os.environ["LISTEN_FDNAMES"] = ":".join(text.partition("=")[0] for text in given)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

"""Sends datagrams to the manager's NOTIFY_SOCKET, as sd_notify(3) does. Keeps nothing open."""

from __future__ import annotations

import os
import socket

from sockmgr.worker import leaving

TIMEOUT = 1.0  # seconds to wait for room in the queue of the manager's socket


def ready(status: str = "") -> bool:
    """Report that this program serves now. Return whether the manager got it."""
    return send("READY=1", *_status(status))


def stopping(status: str = "") -> bool:
    """Report that this program has begun to end; from now on draining() is true.

    Return whether the manager got it.
    """
    leaving.begin()
    return send("STOPPING=1", *_status(status))


def status(text: str) -> bool:
    """Report in one line what this program is doing. Return whether the manager got it."""
    return send(*_status(text or " "))


def send(*lines: str) -> bool:
    """Send fields of sd_notify(3); return False without NOTIFY_SOCKET, or if nobody listens there.

    Never raises OSError: a program that serves must not end because its manager is gone.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT)
            sock.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()

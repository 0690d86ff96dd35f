"""What a worker says on the notify socket."""

from __future__ import annotations

SAY = """
import os, signal, socket, sys, time
def say(data, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(s, [data], list(fds)) if fds else s.send(data)
"""

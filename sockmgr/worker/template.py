"""The process that imports the application once and is copied for each worker.

It has one thread and no event loop, or it could not be copied, and never serves. It ends with its
manager, at once: the next one starts another when it needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import mmap
import os
import select
import signal
import socket
import sys

from sockmgr.worker import clone, obstacles, wire
from sockmgr.worker.application import BrokenError

CONTROL = 3  # the descriptor of the socket to the manager, at the start
_PR_SET_PDEATHSIG = 1
_MAX_FDS = 253  # SCM_MAX_FD, linux/net/scm.h


class Template:
    """The template that this process is, until wait() returns: then it is a worker."""

    def __init__(self, app: str, places: int) -> None:
        """Take the socket to the manager; call it before `app` is imported.

        What the import opens shall not get the numbers, from 3 on, that the workers' `places`
        descriptors are to have.
        """
        self._app, self._pid = app, os.getpid()
        self._make = clone.clone
        self._forked = mmap.mmap(-1, 1)  # shared with what the import forks
        # What an import makes mostly stays: to look for garbage meanwhile takes long, and leaves
        # holes for which memory that is shared would be written to; gc.freeze() in Python's docs.
        self._threshold = gc.get_threshold()
        gc.set_threshold(0)
        moved = fcntl.fcntl(CONTROL, fcntl.F_DUPFD_CLOEXEC, CONTROL + places)
        self._control = socket.socket(fileno=moved)
        os.close(CONTROL)
        for _ in range(places):  # these are the lowest that are free
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        _die_with_the_manager(self._control)
        self._before = obstacles.sockets()  # our own, and what the manager reads our output by

    def wait(self) -> None:
        """Make the workers that the manager asks for; return in each of them, and only there.

        Raises BrokenError if this process cannot be copied after what the import did.
        """
        if os.getpid() != self._pid:
            self._forked[0] = 1
            os._exit(0)
        gc.collect()  # what is only garbage is no obstacle
        if obstacle := "forked" if self._forked[0] else obstacles.found(self._before):
            raise BrokenError(
                f"{self._app} cannot be preloaded: its import {obstacle}",
                "undo that by the end of the import, do it in the application's start-up "
                "(lifespan), or set preload = false",
            )
        # Else the first full collection in a worker would write to, and so copy, every object.
        gc.freeze()
        if gc.get_threshold()[0] == 0:  # else the application has said what it wants
            gc.set_threshold(*self._threshold)
        self._tell(wire.IMPORTED)
        while channel := self._asked():
            try:
                pid, pidfd = self._copy()
            except OSError as error:
                self._tell(wire.FAILED + str(error.strerror).encode())
            else:
                if pid == 0:
                    self._control.close()
                    _become_worker(channel)
                    return
                self._tell(wire.MADE, pidfd)
                os.close(pidfd)
            channel.close()
        os._exit(0)  # what the application does at an exit is for workers to do

    def _asked(self) -> socket.socket | None:
        """Wait to be asked for a worker; return its end of its pair, None at the manager's end."""
        data, fds = wire.receive(self._control, 64, 1)
        if data == wire.MAKE and fds:
            return socket.socket(fileno=fds[0])
        return None

    def _copy(self) -> clone.Made:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
                stream.flush()  # or each worker would say it again
        try:
            return self._make()
        except clone.RefusedError as error:
            _print(f"{error}: each worker is made by two forks instead, which takes longer")
            self._make = clone.fork_twice
            return self._make()

    def _tell(self, message: bytes, *fds: int) -> None:
        try:
            socket.send_fds(self._control, [message], fds)
        except OSError:  # the manager is gone
            os._exit(0)


def _become_worker(channel: socket.socket) -> None:
    """Wait for the message to begin, and put descriptors and environment as it says."""
    try:
        with channel:
            data, fds = wire.receive(channel, wire.SIZE, _MAX_FDS)
    except OSError as error:
        _print(f"this worker cannot begin: {error.strerror}")
        os._exit(1)
    if not data:  # the manager is gone, or wants us no more
        os._exit(0)
    os.setsid()  # only now, when the manager knows it
    places = range(1, 1 + len(fds))
    for fd, place in zip(fds, places, strict=True):  # all above their places, which are taken
        os.dup2(fd, place)
        os.close(fd)
    wire.apply(data, os.environ)


def _die_with_the_manager(control: socket.socket) -> None:
    """Not only at the end of the socket: an import may take long, or for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    watch = select.poll()
    watch.register(control, 0)
    if watch.poll(0):  # it died before
        os._exit(0)


def _print(text: str) -> None:
    sys.stderr.write(f"sockmgr.worker: {text}\n")
    sys.stderr.flush()

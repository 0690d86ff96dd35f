"""The process that imports the application once and is copied for each worker.

It has one thread and no event loop, since it could not be copied otherwise, and never serves. It
ends as soon as its manager ends: the next manager starts another template when it needs one.
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

CONTROL = 3  # the descriptor of the socket to the manager when this process starts
_PR_SET_PDEATHSIG = 1
_MAX_FDS = 253  # SCM_MAX_FD, linux/net/scm.h


class Template:
    """The template that this process is until wait() returns; then this process is a worker."""

    def __init__(self, app: str, places: int) -> None:
        """Take over the socket to the manager. To be called before `app` is imported.

        Occupies the `places` descriptors from 3 on that each worker gets at these numbers, so that
        the import cannot open files there.
        """
        self._app, self._pid = app, os.getpid()
        self._make = clone.clone
        self._forked = mmap.mmap(-1, 1)  # shared with processes that the import forks
        # Most objects that an import makes stay. Collecting garbage meanwhile takes long, and frees
        # memory in pages that workers would share; see gc.freeze() in Python's documentation.
        self._threshold = gc.get_threshold()
        gc.set_threshold(0)
        moved = fcntl.fcntl(CONTROL, fcntl.F_DUPFD_CLOEXEC, CONTROL + places)
        self._control = socket.socket(fileno=moved)
        os.close(CONTROL)
        for _ in range(places):  # open(2) takes the lowest free numbers, which are these
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        _die_with_the_manager(self._control)
        self._before = obstacles.sockets()  # our control socket, and our output if it is a socket

    def wait(self) -> None:
        """Make the workers that the manager asks for; return only in each of the workers.

        Raises BrokenError if the import did something after which a process cannot be copied.
        """
        if os.getpid() != self._pid:
            self._forked[0] = 1
            os._exit(0)
        gc.collect()  # it closes what only garbage still has open
        if obstacle := "forked" if self._forked[0] else obstacles.found(self._before):
            raise BrokenError(
                f"{self._app} cannot be preloaded: its import {obstacle}",
                "undo that by the end of the import, do it in the application's start-up "
                "(lifespan), or set preload = false",
            )
        # Otherwise the first full collection in a worker would write to every object, and so copy
        # its page.
        gc.freeze()
        if gc.get_threshold()[0] == 0:  # the application has not set a threshold of its own
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
        os._exit(0)  # without the application's functions for the exit, which only workers call

    def _asked(self) -> socket.socket | None:
        """Wait until the manager asks for a worker; return the worker's end of its socket pair.

        Return None when the manager has closed the socket.
        """
        data, fds = wire.receive(self._control, 64, 1)
        if data == wire.MAKE and fds:
            return socket.socket(fileno=fds[0])
        return None

    def _copy(self) -> clone.Made:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
                stream.flush()  # otherwise each worker would write the rest of the buffer again
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
    """Wait for the message to begin, and set up descriptors and environment as it says."""
    try:
        with channel:
            data, fds = wire.receive(channel, wire.SIZE, _MAX_FDS)
    except OSError as error:
        _print(f"this worker cannot begin: {error.strerror}")
        os._exit(1)
    if not data:  # the manager is gone, or does not want this worker any more
        os._exit(0)
    os.setsid()  # only now, when the manager has recorded this process
    places = range(1, 1 + len(fds))
    for fd, place in zip(fds, places, strict=True):  # each fd is above all places: they are in use
        os.dup2(fd, place)
        os.close(fd)
    wire.apply(data, os.environ)


def _die_with_the_manager(control: socket.socket) -> None:
    """Have the kernel kill this process when the manager dies, even in the middle of an import."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    watch = select.poll()
    watch.register(control, 0)
    if watch.poll(0):  # the manager had died before prctl(2)
        os._exit(0)


def _print(text: str) -> None:
    sys.stderr.write(f"sockmgr.worker: {text}\n")
    sys.stderr.flush()

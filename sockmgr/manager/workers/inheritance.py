"""What a worker is started with: its descriptors, arguments, environment and identity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sockmgr.config import announcement
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.spec import Accept, Exec, Spec
from sockmgr.errors import SpawnError
from sockmgr.kernel import heartbeat
from sockmgr.kernel.heartbeat import HeartbeatMemory
from sockmgr.kernel.spawn import Launch
from sockmgr.manager.dispatch.channel import Channel
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import WorkerOutput
from sockmgr.manager.workers.survivor import Survivor


class Inheritance:
    """The sockets that one worker gets as 3, 4, ..., and what it is told of them.

    They are its queues of `listeners`, at its `lease`; or one end of its channel, if it has one.
    """

    def __init__(self, spec: Spec, listeners: Sequence[Listener], lease: int) -> None:
        """Borrow the listeners; take() comes next."""
        self._spec, self._listeners, self._lease = spec, listeners, lease
        self._addresses = {
            listen.name: listener.address
            for listen, listener in zip(spec.listen, listeners, strict=True)
        }
        self._fds: list[int] = []
        self.inodes = frozenset[int]()

    def take(self, channel: Channel | None) -> None:
        """Look which sockets these are now, as a listener may have a new one; raise ListenError."""
        if channel:
            self._fds = [channel.theirs]
        else:
            self._fds = [listener.lease(self._lease) for listener in self._listeners]
        self.inodes = frozenset(os.fstat(fd).st_ino for fd in self._fds)

    @property
    def next_number(self) -> int:
        """The number that the descriptor behind the sockets has in the worker."""
        return FIRST_FD + len(self._fds)

    def of_worker(
        self, output: WorkerOutput, notify_socket: str, memory: HeartbeatMemory | None
    ) -> Launch:
        """Return how to start the worker; `notify_socket` is empty if it needs none."""
        fds, more = list[int](), dict[str, str]()
        if memory and self._spec.hang_timeout:
            fds = [memory.fd]
            more = heartbeat.environment(self.next_number, self._spec.hang_timeout)
        if notify_socket:
            more["NOTIFY_SOCKET"] = notify_socket
        argv = announcement.arguments(self._spec)
        return self._launch(output, argv, self._spec.executable, fds, more)

    def of_command(self, command: Exec, executable: str, output: WorkerOutput, pid: int) -> Launch:
        """Return how to start the readiness command beside the worker `pid`."""
        return self._launch(output, command.argv, executable, (), {"SOCKMGR_WORKER_PID": str(pid)})

    def _launch(
        self,
        output: WorkerOutput,
        argv: Sequence[str],
        executable: str,
        fds: Sequence[int],
        more: Mapping[str, str],
    ) -> Launch:
        spec = self._spec
        env = dict(spec.env) | announcement.variables(spec, self._addresses)
        return Launch(
            argv=tuple(argv),
            executable=executable,
            env=env | dict(output.environment) | dict(more),
            cwd=spec.cwd,
            fds=[*self._fds, *fds],
            umask=spec.umask,
            user=spec.user,
            group=spec.group,
            limits=spec.limits,
            set_listen_pid=spec.set_listen_pid,
            stdout=output.writer,
            stderr=output.writer,
        )


def channel_for(spec: Spec, survivor: Survivor | None) -> Channel | None:
    """Return the channel of a worker that is passed connections; None for any other."""
    if spec.accept is not Accept.DISPATCH:
        return None
    if survivor:
        return Channel.adopt(*survivor.channel) if survivor.channel else None
    try:
        return Channel.create()
    except OSError as error:
        raise SpawnError(f"cannot open its channel: {error.strerror}") from error

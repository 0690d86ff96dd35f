"""What a worker is started with: its descriptors, arguments, environment and identity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sockmgr.config import announcement, placeholder
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.spec import Accept, Exec, Spec
from sockmgr.errors import SpawnError
from sockmgr.kernel import heartbeat
from sockmgr.kernel.connections import to_addresses
from sockmgr.kernel.heartbeat import HeartbeatMemory
from sockmgr.kernel.spawn import Launch
from sockmgr.manager.logs.output import WorkerOutput
from sockmgr.manager.workers.context import Assignment
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.programs.dispatcher.channel import Channel


class Inheritance:
    """The sockets that one worker gets as 3, 4, ..., and what it is told of them.

    They are its queues of `listeners`, at its `lease`; or one end of its channel, if it has one.
    Behind them come the memory of its heartbeat and figures, its move queue, and its private
    socket, if it has those.
    """

    def __init__(self, assignment: Assignment) -> None:
        """Borrow what is assigned; take() comes next."""
        self._spec, self._lease = assignment.command.spec, assignment.command.lease
        self._id = assignment.command.worker
        self._listeners, self._moves = assignment.listeners, assignment.moves
        self._private, self._metrics = assignment.private, assignment.metrics
        self._addresses = {
            listen.name: listener.address
            for listen, listener in zip(self._spec.listen, self._listeners, strict=True)
        }
        self._fds: list[int] = []
        self.inodes = frozenset[int]()

    def take(self, channel: Channel | None) -> None:
        """Look which sockets these are now, as a listener may have a new one; raise ListenError."""
        # A worker that is passed connections gets no listener, so it can do no harm to one.
        if channel:
            self._fds = [channel.theirs]
        else:
            self._fds = [listener.lease(self._lease) for listener in self._listeners]
        self.inodes = frozenset(os.fstat(fd).st_ino for fd in self._fds)

    def sockets(self) -> frozenset[int] | None:
        """Return the inodes of what is the worker's: listeners, channel, and connections.

        None if it has no listeners, or if the kernel does not tell of connections.
        """
        if not self._spec.listen:
            return None
        try:
            return self.inodes | to_addresses(each.address for each in self._listeners)
        except OSError:  # sock_diag(7) is refused
            return None

    @property
    def next_number(self) -> int:
        """The number that the descriptor behind the sockets has in the worker."""
        return FIRST_FD + len(self._fds)

    def of_worker(
        self, output: WorkerOutput, notify_socket: str, memory: HeartbeatMemory | None
    ) -> Launch:
        """Return how to start the worker; `notify_socket` is empty if it needs none."""
        fds, more = list[int](), dict[str, str]()
        # All of it comes behind the sockets, which LISTEN_FDS counts from 3 on (sd_listen_fds(3)),
        # and whose numbers may stand in the command line.
        if memory:
            fds = [memory.fd]
            more = heartbeat.environment(
                self.next_number, self._spec.hang_timeout, has_figures=self._spec.has_figures
            )
        if self._moves:
            more["SOCKMGR_GIVE_FD"] = str(self.next_number + len(fds))
            fds.append(self._moves.give.fileno())
        if self._moves and self._spec.accept is not Accept.DISPATCH:  # else the dispatcher takes
            more["SOCKMGR_TAKE_FD"] = str(self.next_number + len(fds))
            fds.append(self._moves.take.fileno())
        if self._private:
            more |= announcement.private(self._spec, self.next_number + len(fds))
            fds.append(self._private.fileno())
        if notify_socket:
            more["NOTIFY_SOCKET"] = notify_socket
        if self._metrics:
            more["PROMETHEUS_MULTIPROC_DIR"] = self._metrics
        argv = announcement.arguments(self._spec, self._id.slot)
        return self._launch(output, argv, self._spec.executable, fds, more)

    def of_command(
        self, command: Exec, executable: str, output: WorkerOutput, pid: int, url: str
    ) -> Launch:
        """Return how to start the readiness command beside the worker `pid`, reached by `url`."""
        more = {"SOCKMGR_WORKER_PID": str(pid)} | ({"SOCKMGR_PROBE_URL": url} if url else {})
        argv = [placeholder.in_slot(text, self._id.slot) for text in command.argv]
        # The command gets the sockets, user and limits of its worker, so it sees what that sees.
        return self._launch(output, argv, executable, (), more)

    def _launch(
        self,
        output: WorkerOutput,
        argv: Sequence[str],
        executable: str,
        fds: Sequence[int],
        more: Mapping[str, str],
    ) -> Launch:
        spec = self._spec
        # The config comes first, so that its variables cannot replace those of the protocol.
        env = dict(spec.env) | announcement.who(spec, self._id.generation, self._id.slot)
        env |= announcement.variables(spec, self._addresses)
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
            stdout=output.ends[0],
            stderr=output.ends[1],
        )


def channel_for(spec: Spec, survivor: Survivor | None) -> Channel | None:
    """Return the channel of a worker that is passed connections; None for any other."""
    if spec.accept is not Accept.DISPATCH:
        return None
    # A survivor whose channel was lost cannot be passed anything; the fleet replaces it.
    if survivor:
        return Channel.adopt(*survivor.channel) if survivor.channel else None
    try:
        return Channel.create()
    except OSError as error:
        raise SpawnError(f"cannot open its channel: {error.strerror}") from error


def memory_for(spec: Spec, survivor: Survivor | None, number: int) -> HeartbeatMemory | None:
    """Return the memory for heartbeat and figures, descriptor `number` of a worker that has one."""
    if not (spec.hang_timeout or spec.has_figures):
        return None
    if survivor:
        return HeartbeatMemory.of(survivor.process.pid, number)
    return HeartbeatMemory.create()

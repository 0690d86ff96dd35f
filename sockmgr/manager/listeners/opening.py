"""How a listener comes by its sockets: bound, adopted from whoever bound them, or a predecessor's.

Decides whether new connections can be steered among them, or why not. Owns nothing: the sockets
are the listener's, or still the caller's when there is none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Listen
from sockmgr.errors import ListenError
from sockmgr.fleet.snapshot import ListenerSnapshot
from sockmgr.kernel import handshakes, queues, sockets
from sockmgr.kernel.steering.members import twin
from sockmgr.kernel.steering.pool import Pool, settle
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener

_log = Log("sockmgr.listener")

_UNIX = (
    "the kernel steers TCP and UDP only, so with a unix socket the old workers may still accept "
    "while they are told to stop"
)


def bind(listen: Listen) -> Listener:
    """Bind what `listen` says. Raises ListenError."""
    traits = listen.address.traits
    sock = sockets.bind(listen, reuse_port=traits.is_internet)
    if traits.is_inherited:  # fd://N was bound by whoever started us
        return adopt(listen, [sock])
    if not traits.is_internet:
        return Listener(listen, sock, _UNIX, owns_path=True)
    return _group(listen, [sock], {0: 1})


def adopt(listen: Listen, socks: Sequence[socket.socket]) -> Listener:
    """Own sockets that somebody else bound to the one address of `listen`; lease n is the nth.

    Raises ListenError; the sockets stay the caller's then.
    """
    if not socks:
        raise ListenError(f"there is no socket to adopt for listener {listen.name}")
    first = socks[0]
    if len(socks) > 1:
        queues.check_group(listen, socks)
        # Before there was a program to steer them, connections went to any queue.
        fullest = max(range(len(socks)), key=lambda n: queues.queued(socks[n]))
        return _group(listen, socks, {fullest: 1})
    # A socket unit has a backlog of its own (Backlog=), and the config may want a longer one.
    if first.type == socket.SOCK_STREAM and queues.backlog(first) < queues.reachable(listen):
        first.listen(listen.backlog)
    if first.family == socket.AF_UNIX:
        return Listener(listen, first, _UNIX)
    try:
        return Listener(listen, Pool.join(first, backlog=listen.backlog))
    except ListenError as error:
        return Listener(listen, first, f"{error.what}; {error.do}")


def replace(was: ListenerSnapshot, socks: Sequence[socket.socket]) -> Listener:
    """Open a listener anew and close its sockets, which refuse all clients: a stop was cut short.

    Not everybody may undo that. Workers that live have the old sockets, and are to be replaced.
    """
    try:
        if socks[0].family == socket.AF_UNIX:
            listener = bind(was.listen)
        else:
            beside = twin(socks[0], backlog=was.listen.backlog)
            listener = _group(was.listen, [beside], {0: 1})
        listener.is_anew = True
        return listener
    finally:
        for sock in socks:
            sock.close()


def left_at(listener: Listener) -> Mapping[int, int]:
    """Return how many connections wait at each lease, fullest first, at sockets older than we are.

    An empty queue to which nobody is on the way is not among them, unless fed. Takes 30 ms.
    """
    if not listener.is_steered or len(listener.queues) == 1:
        return {}
    settle()  # from now on handshakes begin in the fed queue only
    begun = handshakes.under_way(listener.queues[0])
    # Queues are counted after handshakes: one that has ended in between is seen in its queue.
    waiting = {n: queues.queued(queue) for n, queue in enumerate(listener.queues)}
    left = {n: count for n, count in waiting.items() if count or begun or n in listener.fed}
    return dict(sorted(left.items(), key=lambda item: (-item[1], item[0] not in listener.fed)))


def written(listener: Listener, settled: Collection[int] = ()) -> ListenerSnapshot:
    """Return what resume() needs beside the sockets; at `settled` leases no worker boots."""
    refuses, ends = listener.is_refusing, listener.is_ending
    return ListenerSnapshot(
        listen=listener.listen,
        inodes=tuple(listener.inodes),
        order=listener.order,
        fed=tuple(listener.fed.items()),
        why_overlap=listener.why_overlap,
        owns_path=listener.owns_path,
        refusing=refuses and not ends,
        ending=refuses and ends,
        # Whoever boots is about to set O_NONBLOCK, and nobody tells us when.
        blocking=tuple(
            n
            for n, queue in enumerate(listener.queues)
            if n in settled and os.get_blocking(queue.fileno())
        ),
    )


def resume(
    was: ListenerSnapshot, socks: Sequence[socket.socket], late: Sequence[socket.socket] = ()
) -> Listener:
    """Own the sockets of a predecessor's listener; lease n is the nth, as it was there.

    And those that systemd has bound to its address since: they have joined the group, so that the
    queues to come have later places in it; a unix path leads to the `late` one now.
    """
    held: socket.socket | Pool = socks[0]
    if was.order:
        every = [*socks, *late]
        order = (*was.order, *range(len(socks), len(every)))
        held = Pool(every, fed=dict(was.fed), order=order)
        if late:  # the kernel may have put them at other places than we think
            held.locate()
    elif late:
        held = late[0]
    why = "" if was.order else was.why_overlap
    listener = Listener(was.listen, held, why, owns_path=was.owns_path and not late)
    if held is not socks[0] and not was.order:
        listener.retire(socks[0])
    if was.refusing:  # nothing tells what the filter of a socket is, so it is attached again
        listener.refuse()
    for lease in was.blocking:
        os.set_blocking(socks[lease].fileno(), True)
    return listener


def _group(listen: Listen, socks: Sequence[socket.socket], fed: Mapping[int, int]) -> Listener:
    try:
        pool = Pool(socks, fed=fed)
    except OSError as error:
        if len(socks) > 1:
            raise ListenError(
                f"cannot steer the {len(socks)} sockets of listener {listen.name}: "
                f"{error.strerror}",
                do="pass one socket, or set ReusePort=yes in the .socket unit",
            ) from error
        return Listener(listen, socks[0], f"the kernel does not steer: {error.strerror}")
    # Steering goes by the kernel's order of a group, which need not be the order we got them in.
    if len(socks) > 1 and not pool.locate():
        _log.warning("order of adopted queues not confirmed", listener=listen.name)
    aside = sum(queues.queued(sock) for n, sock in enumerate(socks) if n not in fed)
    if aside:
        _log.info(EventKind.CONNECTIONS_IN_SEVERAL_QUEUES, listener=listen.name, waiting=aside)
    return Listener(listen, pool)

"""Pools of queues to test, and connections that wait in them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.kernel import queues, sockets
from sockmgr.kernel.steering.pool import Pool


def listen(host: str = "127.0.0.1", scheme: Scheme = Scheme.TCP) -> Listen:
    return Listen(name="http", address=Address(scheme=scheme, host=host), backlog=256)


@contextlib.contextmanager
def pool_of(size: int, host: str = "127.0.0.1", scheme: Scheme = Scheme.TCP) -> Iterator[Pool]:
    pool = Pool([sockets.bind(listen(host, scheme), reuse_port=True)], fed={0: 1})
    try:
        while len(pool) < size:
            pool.grow(backlog=256)
        yield pool
    finally:
        pool.close()


def target(pool: Pool) -> tuple[str, int]:
    host, port = pool.queues[0].getsockname()[:2]
    return {"::": "::1"}.get(host, host), port


def fill(pool: Pool, number: int) -> list[socket.socket]:
    """Connect `number` times, and leave the connections in the queues."""
    family = pool.queues[0].family
    clients = []
    for _ in range(number):
        client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(5)
        client.connect(target(pool))
        clients.append(client)
    return clients


def lengths(pool: Pool) -> list[int]:
    return [queues.queued(queue) for queue in pool.queues]


def down(pool: Pool) -> list[int]:
    return [n for n, queue in enumerate(pool.queues) if not queues.is_listening(queue)]


@contextlib.contextmanager
def filled(pool: Pool, number: int) -> Iterator[list[int]]:
    """Tell where `number` connections went, then take them out again."""
    clients = fill(pool, number)
    try:
        yield lengths(pool)
    finally:
        for queue in pool.queues:
            for _ in range(queues.queued(queue)):
                queue.accept()[0].close()
        for client in clients:
            client.close()

"""`manager.py LISTENER POLICY WORKERS`: no more than a dispatcher and its workers, until TERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from sockmgr.config.spec import Policy, report_pace
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.dispatch.service import Events
from sockmgr.programs.dispatcher.channel import Channel

WORKER = Path(__file__).with_name("worker.py")


def _misbehaves(lease: int, why: str) -> None:
    print(f"worker {lease}: {why}", file=sys.stderr)


def _start(channel: Channel, policy: Policy) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "SOCKMGR_DISPATCH_FD": str(channel.theirs),
        "SOCKMGR_DISPATCH_PACE": str(report_pace(policy, None)),
    }
    os.set_inheritable(channel.theirs, True)
    try:
        return subprocess.Popen([sys.executable, str(WORKER)], env=env, pass_fds=[channel.theirs])
    finally:
        os.set_inheritable(channel.theirs, False)


async def main() -> None:
    """Start the workers, feed those that take, print "ready", and end them after TERM."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    policy, count = Policy(sys.argv[2]), int(sys.argv[3])
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    fed: set[int] = set()

    def takes(lease: int) -> None:
        fed.add(lease)
        service.feed(dict.fromkeys(fed, 1), {lease: ["http"] for lease in fed}, ["http"])
        if len(fed) == count:
            print("ready", flush=True)

    dispatcher = Dispatcher(lambda: None, {}, is_last=True, is_upgrade=False)
    dispatcher.begin()
    service = dispatcher.service("bench", Events(takes=takes, misbehaves=_misbehaves), policy, None)
    service.listen({listener: "http"})
    workers = []
    for lease in range(count):
        channel = Channel.create()
        workers.append(_start(channel, policy))
        service.attach(lease, f"worker {lease}", channel, ["http"], -1)
    await over.wait()
    for worker in workers:
        worker.terminate()
        worker.wait()
    await dispatcher.end()
    service.close()
    listener.close()


if __name__ == "__main__":
    asyncio.run(main())

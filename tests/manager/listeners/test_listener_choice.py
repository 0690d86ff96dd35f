"""What a listener tells of how one of several queues is chosen; in test_round_robin.py it is."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys

import pytest

from sockmgr.kernel.steering.pool import Choice
from sockmgr.manager.listeners import opening
from tests.helpers.capabilities import needs_bpf
from tests.helpers.listeners import opened, tcp

REFUSED = (sys.executable, "-m", "tests.helpers.refuse", "bpf")
TURNS = "queues take turns listener=http choice='round robin (eBPF)'"
RANDOM = """if True:
    import logging
    from tests.helpers.listeners import opened, tcp
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
    with opened(tcp()) as listener:
        for leases in ((0,), (0, 1), (1, 2), (2,), (2, 3)):
            listener.feed(dict.fromkeys(leases, 1))
            print(listener.choice)
"""


@needs_bpf
def test_that_queues_take_turns_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sockmgr.listener")
    with opened(tcp()) as listener:
        assert listener.choice is Choice.ONE
        for leases in ((0,), (0, 1), (1, 2), (2,), (2, 3)):
            listener.feed(dict.fromkeys(leases, 1))
            assert listener.choice is (Choice.ONE if len(leases) == 1 else Choice.ROUND_ROBIN)
    assert caplog.messages == [TURNS]


@needs_bpf
def test_a_manager_that_goes_on_with_several_queues_tells_how(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "sockmgr.listener")
    with opened(tcp()) as listener:
        listener.feed({0: 1, 2: 3})
        was, copies = opening.written(listener), [queue.dup() for queue in listener.queues]
    with contextlib.closing(opening.resume(was, copies)) as resumed:
        assert resumed.fed == {0: 1, 2: 3}
        assert resumed.choice is Choice.ROUND_ROBIN
    assert caplog.messages == [TURNS, TURNS]


def test_that_queues_are_chosen_at_random_is_told_once_with_the_reason_and_what_to_do() -> None:
    done = subprocess.run(
        [*REFUSED, sys.executable, "-c", RANDOM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, several = "one queue", "random (classic BPF)"
    assert done.stdout.splitlines() == [one, several, several, one, several]
    (line,) = done.stderr.splitlines()
    assert line == (
        "INFO queues chosen at random listener=http choice='random (classic BPF)' "
        "because='bpf(2): operation not permitted' do='give the manager CAP_BPF, or run it as root'"
    )

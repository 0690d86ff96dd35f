"""The values themselves: addresses as text, surges, exit statuses."""

from __future__ import annotations

import pytest

from sockmgr.config.spec import SURGE_ALL, Address, Rollout, Scheme, Spec, Surge
from sockmgr.fleet.endings import describe_exit

MEGABYTE = 1 << 20


def spec(workers: int, surge: Surge) -> Spec:
    return Spec(
        service="web", argv=("x",), executable="x", cwd="/", workers=workers,
        rollout=Rollout(surge=surge),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("surge", "wanted", "more"),
    [(SURGE_ALL, 4, 4), (Surge(amount=25, percent=True), 10, 3), (Surge(amount=2), 9, 2),
     (Surge(amount=1, percent=True), 4, 1)],
)  # fmt: skip
def test_a_surge_is_rounded_up_and_never_nothing(surge: Surge, wanted: int, more: int) -> None:
    assert surge.above(wanted) == more


def test_a_surge_that_fits_into_memory_stays() -> None:
    four = spec(4, SURGE_ALL)
    assert four.within(free=1000 * MEGABYTE, each=200 * MEGABYTE) is four


def test_a_surge_that_does_not_fit_is_reduced_to_what_does() -> None:
    fitting = spec(4, SURGE_ALL).within(free=1000 * MEGABYTE, each=300 * MEGABYTE)
    assert fitting.rollout.surge == Surge(amount=3)


def test_a_rollout_stays_possible_when_no_memory_is_free() -> None:
    assert spec(4, SURGE_ALL).within(free=0, each=MEGABYTE).rollout.surge == Surge(amount=1)


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exited with status 0"), (3, "exited with status 3"),
     (-9, "was killed by signal 9 (KILL)"), (-40, "was killed by signal 40")],
)  # fmt: skip
def test_an_exit_status_is_told_in_words(status: int, text: str) -> None:
    assert describe_exit(status) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [(Address(scheme=Scheme.TCP, host="::1", port=80), "tcp://[::1]:80"),
     (Address(scheme=Scheme.UDP, host="127.0.0.1", port=53), "udp://127.0.0.1:53"),
     (Address(scheme=Scheme.UNIX, path="/run/a"), "unix:///run/a"),
     (Address(scheme=Scheme.ABSTRACT, path="a"), "unix-abstract:a"),
     (Address(scheme=Scheme.FD, fd=3), "fd://3")],
)  # fmt: skip
def test_an_address_is_written_as_in_the_config(address: Address, text: str) -> None:
    assert str(address) == text

"""Which queues of a service's listeners are fed, and the wait until those that are not are empty.

Performs each Feed at once and puts the Quiet that it owes. Owns the tasks that wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from sockmgr.errors import ListenError
from sockmgr.fleet.messages import Fact, FeedFailed, Quiet
from sockmgr.log import Log
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.queue_drain import QueueDrain
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.service.lease_map import LeaseModes

log = Log("sockmgr")

_Owed = tuple[QueueDrain, asyncio.Task[None]]
Leases = Mapping[int, tuple[Listener, ...]]  # each with the listeners that have it


class Traffic:
    """What is fed now, by lease, and of which listeners.

    `modes` says which leases are passed connections. Whoever tells the fleet a fact sets it anew
    right after: it depends on nothing but the fleet's records.
    """

    def __init__(
        self,
        service: str,
        tasks: asyncio.TaskGroup,
        put: Callable[[Fact], None],
        dispatching: Dispatching,
    ) -> None:
        self._service, self._tasks, self._put = service, tasks, put
        self._dispatching = dispatching
        self.modes = LeaseModes()
        self._fed: dict[int, tuple[Listener, ...]] = {}
        self._parting: Leases = {}
        self._is_over = self._is_fixed = False
        self._owed: dict[int, _Owed] = {}

    def adopt(self, listeners: tuple[Listener, ...]) -> tuple[int, ...]:
        """Return the leases on which connections wait since before our time, most first."""
        left: Counter[int] = Counter()
        for listener in listeners:
            left.update(opening.left_at(listener))
        leases = tuple(lease for lease, _ in left.most_common())
        # As if they had been fed: the first Feed looks after those that it leaves out.
        self._fed = dict.fromkeys(leases, listeners)
        return leases

    def resume(self, weights: Mapping[int, int], fed: Leases, unquiet: Leases) -> None:
        """Go on where a predecessor was: `fed` is fed, and Quiet is owed for `unquiet`."""
        self._fed = dict(fed)
        self._pass_on(weights)
        self._owe_quiet(unquiet)

    def feed(self, weights: Mapping[int, int], users: Leases) -> None:
        """Feed these leases only; `users` are the listeners of each."""
        with self._reporting_failure():
            self._steer(weights, users)
            self.give_up(users.keys() & self._owed.keys())
            # As they were when it was fed: its generation may be gone, and clients still wait.
            self._owe_quiet({n: each for n, each in self._fed.items() if n not in users})
            self._fed = dict(users)
            self._pass_on(weights)

    def keep_up(self, weights: Mapping[int, int], users: Leases) -> None:
        """Feed the same leases; a worker may have come to one with listeners of its own."""
        with self._reporting_failure():
            if users != self._fed:
                self._steer(weights, users)
                self._fed = dict(users)
                self._pass_on(weights)
            elif self.modes.parting != self._parting:
                self._pass_on(weights)

    @contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        """Let the fleet decide what becomes of a rollout whose workers cannot be fed."""
        try:
            yield
        except (OSError, ListenError) as error:
            why = error.what if isinstance(error, ListenError) else (error.strerror or str(error))
            log.error("new connections cannot be steered", service=self._service, because=why,
                      means="they go where they went before")  # fmt: skip
            self._put(FeedFailed(error=why))

    @contextmanager
    def untouched(self, weights: Mapping[int, int]) -> Iterator[None]:
        """Let somebody mend the queues meanwhile, and replace some."""
        self._dispatching.let_go()
        yield
        self._pass_on(weights)

    def accept_no_more(self) -> None:
        """Pass nothing on any more: all are told to stop."""
        self._is_over = True
        self._pass_on({})

    def steer_no_more(self, weights: Mapping[int, int]) -> None:
        """Leave the queues as they are now: the listeners refuse new connections."""
        self._is_fixed = True
        self._pass_on(weights)

    def expect(self, lease: int, listeners: Collection[Listener]) -> None:
        """Somebody is to come to this lease: let clients of listeners that are new wait there."""
        known = {listener for users in self._fed.values() for listener in users}
        for listener in set(listeners) - known:
            listener.feed({lease: 1})

    def wait_anew(self, unfed: Leases) -> None:
        """Owe Quiet for these from now on, whatever was seen before."""
        self.give_up(unfed.keys() & self._owed.keys())
        self._owe_quiet(unfed)

    def keep_waiting(self, unquiet: Collection[int]) -> None:
        """Wait for these only; of the others nobody is left who would empty them."""
        self.give_up(self._owed.keys() - unquiet)

    def give_up(self, leases: Collection[int]) -> None:
        """Wait no longer for these."""
        for lease in list(leases):
            queue_drain, task = self._owed.pop(lease)
            if not queue_drain.leave_out(lease):
                task.cancel()

    def close(self) -> None:
        """Wait for nothing any more."""
        self.give_up(self._owed)
        self._dispatching.close()

    def _steer(self, weights: Mapping[int, int], users: Leases) -> None:
        if self._is_fixed:
            return
        shares: dict[Listener, Counter[int]] = {}
        passed = [lease for lease in users if lease in self.modes.passed]
        for lease, listeners in users.items():
            queue = self._dispatching.queue(passed) if lease in passed else lease
            for listener in listeners:
                shares.setdefault(listener, Counter())[queue] += weights[lease]
        for listener, share in shares.items():
            listener.feed(share)

    def _owe_quiet(self, unfed: Leases) -> None:
        if unfed:
            queue_drain = QueueDrain(unfed, self._be_quiet)
            name = f"quiet {', '.join(map(str, unfed))}"
            task = self._tasks.create_task(queue_drain.run(), name=name)
            self._owed |= dict.fromkeys(unfed, (queue_drain, task))

    def _pass_on(self, weights: Mapping[int, int]) -> None:
        modes = self.modes
        self._parting = modes.parting
        if self._is_over:
            self._dispatching.feed({}, {}, modes.accept)
            return
        served = {n: each for n, each in self._fed.items() if n in weights and n in modes.passed}
        # A listener that no fed lease has any more, since the config removed it, still has clients:
        # they go to the workers that are about to leave.
        kept = {listener for listeners in self._fed.values() for listener in listeners}
        for lease in modes.parting.keys() & modes.passed:
            if alone := tuple(each for each in modes.parting[lease] if each not in kept):
                served[lease] = alone
        self._dispatching.feed({n: weights.get(n, 1) for n in served}, served, modes.accept)

    def _be_quiet(self, lease: int) -> None:
        owed = self._owed.get(lease)
        # The queue is empty; what came from there may still wait for its worker.
        if taken := self._dispatching.quiet(lease):
            taken.add_done_callback(lambda _: self._put_quiet(lease, owed))
        else:
            self._put_quiet(lease, owed)

    def _put_quiet(self, lease: int, owed: _Owed | None) -> None:
        if owed and self._owed.get(lease) is owed:
            del self._owed[lease]
            self._put(Quiet(lease=lease))

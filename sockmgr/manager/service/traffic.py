"""Which queues of a service's listeners are fed, and the wait until the other queues are empty.

Performs each Feed at once, and puts a Quiet for each lease that it left out. Owns the tasks that
wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager

from msgspec.structs import replace

from sockmgr.config.spec import Address
from sockmgr.errors import ListenError
from sockmgr.fleet.messages import Fact, FeedFailed, Quiet
from sockmgr.log import Log
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.queue_drain import QueueDrain
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.service.lease_map import LeaseModes
from sockmgr.manager.service.owners import Owners

log = Log("sockmgr")

_Owed = tuple[QueueDrain, asyncio.Task[None]]
Leases = Mapping[int, tuple[Listener, ...]]  # each with the listeners that have it


class Traffic:
    """The leases that are fed now, each with the listeners whose queues are fed.

    `modes` says which leases are passed connections. It depends on the fleet's records only, so the
    service sets it after each fact.
    """

    def __init__(
        self,
        service: str,
        tasks: asyncio.TaskGroup,
        put: Callable[[Fact], None],
        dispatching: Dispatching,
        owners: Owners | None = None,
    ) -> None:
        """Listeners whose clients others have, as `owners` says, are left to those."""
        self._service, self._tasks, self._put = service, tasks, put
        self._dispatching, self._owners = dispatching, owners or Owners({})
        self.modes = LeaseModes()
        self._fed: dict[int, tuple[Listener, ...]] = {}
        self._passed_on = self.modes  # as they were when the dispatcher was told last
        self._passing: tuple[Set[int], Set[int]] = frozenset(), frozenset()
        self._others: Set[Address] = frozenset()  # what was left to other services ...
        self._takes = 0  # ... who may have taken some since, and lost them again
        self._is_over = self._is_fixed = self._is_unsure = False
        self._owed: dict[int, _Owed] = {}
        self._told = set[int]()  # quiet, which the fleet has not heard yet

    @property
    def leases(self) -> Set[int]:
        """The leases that are fed now."""
        return self._fed.keys()

    def adopt(self, listeners: tuple[Listener, ...]) -> tuple[int, ...]:
        """Return the leases where connections wait since before our time, the fullest first."""
        # The kernel chose the queue of each client by a hash, so clients may wait in all of them.
        left: Counter[int] = Counter()
        for listener in listeners:
            left.update(opening.left_at(listener))
        leases = tuple(lease for lease, _ in left.most_common())
        # As if they had been fed: the first Feed looks after those that it leaves out.
        self._fed = dict.fromkeys(leases, listeners)
        return leases

    def resume(self, weights: Mapping[int, int], fed: Leases, unquiet: Leases) -> None:
        """Go on where a predecessor was: it fed the leases `fed`, and owed Quiet for `unquiet`."""
        # It may have died when the kernel had refused to feed others: who comes goes there still.
        others = {n: each for n, each in unquiet.items() if n not in fed}
        still = {n: each for n, each in others.items() if any(n in at.fed for at in each)}
        self._fed, self._is_unsure = dict(fed) | still, True
        self._pass_on(weights)
        self._owe_quiet({n: each for n, each in unquiet.items() if n not in still})

    def feed(self, weights: Mapping[int, int], leases: Leases) -> None:
        """Feed these leases only, each with its listeners."""
        with self._reporting_failure():
            self._change(weights, leases)

    def keep_up(self, weights: Mapping[int, int], leases: Leases) -> None:
        """Feed the same leases; a worker that came to one may have added listeners to it."""
        with self._reporting_failure():
            # This is called after every fact, and few facts change anything here: a new program is
            # attached to the queues only if one does.
            others, takes = self._owners.elsewhere(self._service), self._owners.takes
            if self._is_unsure or leases != self._fed or self._ways(leases.keys()) != self._passing:
                self._change(weights, leases)  # also what a Feed that failed has left out
            elif (others, takes) != (self._others, self._takes):
                self._change(weights, leases)
            # The dispatcher is to be told of others' leases, and of what has parted; who is passed
            # connections by now, and not fed, does not concern it yet.
            elif replace(self._passed_on, passed=self.modes.passed) != self.modes:
                self._pass_on(weights)

    def _change(self, weights: Mapping[int, int], leases: Leases) -> None:
        # Steering comes first because it may fail: `_fed` must then still say what is fed.
        self._steer(weights, leases)
        self.give_up(leases.keys() & self._owed.keys())
        # As they were when it was fed: its generation may be gone, and clients still wait.
        self._owe_quiet({n: each for n, each in self._fed.items() if n not in leases})
        self._fed = dict(leases)
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
        """Accept from no queue meanwhile, so that queues can be mended or replaced."""
        self._dispatching.let_go()
        yield
        self._pass_on(weights)

    def accept_no_more(self) -> None:
        """Pass no more connections on: all workers are being stopped."""
        self._is_over = True
        self._pass_on({})

    def steer_no_more(self, weights: Mapping[int, int]) -> None:
        """Leave the queues as they are: the listeners refuse new connections from now on."""
        self._is_fixed = True
        self._pass_on(weights)

    def expect(self, lease: int, listeners: Collection[Listener]) -> None:
        """Let clients of new listeners wait at this lease: a worker was started for it."""
        # A listener that is fed already keeps its queue until the next Feed: workers answer there.
        known = {listener for each in self._fed.values() for listener in each}
        with self._reporting_failure():
            for listener in set(listeners) - known:
                listener.feed({lease: 1})

    def wait_anew(self, unfed: Leases) -> None:
        """Begin the wait for these leases again, whatever was seen before."""
        self.give_up(unfed.keys() & self._owed.keys())
        self._owe_quiet(unfed)

    def keep_waiting(
        self, unquiet: Set[int], wanted: Set[int], listeners: Callable[[], Leases]
    ) -> None:
        """Wait for the `unquiet` leases, and no others: nobody is left to empty their queues.

        Those `wanted` for which we wait still will be fed soon: a Feed that failed is tried again.
        """
        self.give_up(self._owed.keys() - unquiet - wanted)
        self._told &= unquiet
        if missing := unquiet - self._owed.keys() - self._fed.keys() - self._told:
            every = listeners()
            self._owe_quiet({lease: every[lease] for lease in missing})

    def give_up(self, leases: Collection[int]) -> None:
        """Stop waiting for these leases."""
        for lease in list(leases):
            queue_drain, task = self._owed.pop(lease)
            # One task waits for all that one Feed left out; the others may still be waited for.
            if not queue_drain.leave_out(lease):
                task.cancel()

    def close(self) -> None:
        """Stop waiting for all leases, and stop accepting."""
        self.give_up(self._owed)
        self._dispatching.close()

    def _steer(self, weights: Mapping[int, int], leases: Leases) -> None:
        if self._is_fixed:
            return
        self._others, self._takes = self._owners.elsewhere(self._service), self._owners.takes
        shares: dict[Listener, dict[int, int]] = defaultdict(dict)
        for lease, listeners in _getting(weights, leases).items():
            for listener in listeners:
                shares[listener][lease] = weights[lease] or 1
        is_unsure, self._is_unsure = self._is_unsure, False
        for listener, share in shares.items():
            gathered = self._gathered(listener, share)
            is_ours = listener.listen.address not in self._others
            if is_ours and not (is_unsure and listener.fed == gathered):
                listener.feed(gathered)

    def _gathered(self, listener: Listener, share: Mapping[int, int]) -> Mapping[int, int]:
        """Return weights by queue: the dispatcher accepts for its workers, so one does for them."""
        if not (passed := [lease for lease in share if lease in self.modes.passed]):
            return share
        queue = self._dispatching.queue(listener, passed)
        queues = Counter[int]()
        for lease, weight in share.items():
            queues[queue if lease in passed else lease] += weight
        return queues

    def _ways(self, leases: Set[int]) -> tuple[Set[int], Set[int]]:
        """Return which of these leases are passed connections, and which accept for themselves."""
        return self.modes.passed & leases, self.modes.accept & leases

    def _owe_quiet(self, unfed: Leases) -> None:
        if unfed:
            queue_drain = QueueDrain(unfed, self._be_quiet)
            name = f"quiet {', '.join(map(str, unfed))}"
            task = self._tasks.create_task(queue_drain.run(), name=name)
            self._owed |= dict.fromkeys(unfed, (queue_drain, task))

    def _pass_on(self, weights: Mapping[int, int]) -> None:
        modes = self.modes
        self._passed_on, self._passing = modes, self._ways(self._fed.keys())
        if self._is_over:
            self._dispatching.feed({}, {}, modes)
            return
        fed = {n: each for n, each in self._fed.items() if weights.get(n)}
        served = {n: each for n, each in fed.items() if n in modes.passed}
        # Who comes to a listener that none of those has, as the config removed it, or waits there,
        # goes to the workers that have it still.
        others, all_others = ({x for each in y.values() for x in each} for y in (served, fed))
        for lease, listeners in (self._fed | dict(modes.parting)).items():
            if lease in modes.passed and lease not in fed:
                alone = (x for x in listeners if x not in (others if x.is_steered else all_others))
                served[lease] = tuple(alone)
        shares = {n: weights.get(n) or 1 for n in served}
        self._dispatching.feed(shares, served, modes)

    def _be_quiet(self, lease: int) -> None:
        owed = self._owed.get(lease)
        # The queue is empty, but what came from there may still wait in the channel of its worker.
        if taken := self._dispatching.quiet(lease):
            taken.add_done_callback(lambda _: self._put_quiet(lease, owed))
        else:
            self._put_quiet(lease, owed)

    def _put_quiet(self, lease: int, owed: _Owed | None) -> None:
        # If the lease was fed again meanwhile, the Quiet that is owed for it belongs to a new wait.
        if owed and self._owed.get(lease) is owed:
            del self._owed[lease]
            self._told.add(lease)
            self._put(Quiet(lease=lease))


def _getting(weights: Mapping[int, int], leases: Leases) -> dict[int, tuple[Listener, ...]]:
    """Return of which listeners each lease gets new clients; of weight 0: those no other has."""
    others = {each for lease, mine in leases.items() if weights[lease] for each in mine}
    return {
        lease: mine if weights[lease] else tuple(each for each in mine if each not in others)
        for lease, mine in leases.items()
    }

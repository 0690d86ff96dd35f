"""One-line edits of the shell around the fleets, each of which simulation has to notice.

`python -m tests.simulation 4800 --first 0 --mutant NAME` tries one. Each is a defect of a kind that
no test of one fleet can notice: between services, managers, queues and the dispatcher.
"""

from __future__ import annotations

from tests.fleet.mutants import Mutant

MUTANTS = (
    Mutant(
        "do not pass on what a Feed changes",
        "sockmgr.manager.service.traffic",
        "weights.get(n) or 1 for n in served}",
        "weights.get(n) or 1 for n in ()}",
    ),
    Mutant(
        "let a listener be closed that another service has",
        "sockmgr.manager.services",
        "(+self._asked_for, *(each.addresses for each in self))\n",
        "(+self._asked_for)\n",
    ),
    Mutant(
        "forget that others have leases on the same listeners",
        "sockmgr.manager.service.owners",
        "for each in self._others(service, addresses)))\n",
        "for each in ()))\n",
    ),
    Mutant(
        "steer a listener whose clients another service has",
        "sockmgr.manager.service.traffic",
        "            is_ours = listener.listen.address not in self._others\n",
        "            is_ours = bool(listener.listen)\n",
    ),
    Mutant(
        "leave the queues of the dead to nobody where the listener is another service's",
        "sockmgr.manager.service.owners",
        "                owner.inherit({lease}, now)\n",
        "                owner.inherit(frozenset(), now)\n",
    ),
    Mutant(
        "feed nobody at a listener that only the earlier generation has",
        "sockmgr.fleet.leases",
        "        beside = self._beside(serving) - dict(shares).keys()\n",
        "        beside = self._beside(serving) - self._beside(serving)\n",
    ),
    Mutant(
        "refuse clients at a listener that another service gets",
        "sockmgr.manager.services",
        "        return bool(opened) or any(address in wanted(fleet) for fleet in going)",
        "        return bool(opened) and any(address in wanted(fleet) for fleet in going)",
    ),
    Mutant(
        "forget what the next manager has to wait for",
        "sockmgr.fleet.restoring",
        "{lease: now for lease, _ in service.unquiet}",
        "{}",
    ),
    Mutant(
        "do not save before a client hears of it",
        "sockmgr.manager.service.service",
        "        if answered or self._feeds_more:\n",
        "        if self._feeds_more and not answered:\n",
    ),
    Mutant(
        "take the config for accepted though a service was taken back",
        "sockmgr.config.plan",
        "    services |= {s.name: s for s in new.services if s.name in committed}",
        "    services |= {s.name: s for s in new.services}",
    ),
    Mutant(
        "end a move queue though those serve who take from it",
        "sockmgr.manager.service.lease_map",
        "for each in (newest, still) if each]",
        "for each in (newest, newest) if each]",
    ),
    Mutant(
        "go on with a move queue that was ended just before a death",
        "sockmgr.manager.workers.moves",
        "pair.keys() == {_GIVE, _TAKE} and not _is_ended(pair[_TAKE]):",
        "pair.keys() == {_GIVE, _TAKE}:",
    ),
    Mutant(
        "have the dispatcher take nothing again that was given when no worker had room",
        "sockmgr.programs.dispatcher.moves",
        "        if self._waiting and self._has_room():\n",
        "        if not (self._waiting or self._has_room()):\n",
    ),
    Mutant(
        "give a new keeper nothing of what the one before it had",
        "sockmgr.manager.takeover.saved_state",
        "        self._held.clear()\n",
        "        self._held.copy()\n",
    ),
    Mutant(
        "go on with a keeper that was not given all",
        "sockmgr.manager.takeover.keeper_store",
        "        if STATE not in descriptors:",
        "        if not STATE:",
    ),
    Mutant(
        "keep for ever who ended before the state named it",
        "sockmgr.manager.takeover.saved_state",
        "                saved.marks[id], saved.holdings[id] = (), found\n",
        "                saved.holdings.pop(id, None)\n",
    ),
)


# A seed from which it does not take long, so that the test is quick; any other would do.
SOON = {
    "leave the queues of the dead to nobody where the listener is another service's": 12032,
    "go on with a move queue that was ended just before a death": 5003744,
    "go on with a keeper that was not given all": 2816,
    "keep for ever who ended before the state named it": 5000832,
    "forget that others have leases on the same listeners": 1472,
    "do not save before a client hears of it": 512,
    "take the config for accepted though a service was taken back": 480,
    "refuse clients at a listener that another service gets": 1664,
}


def named(name: str) -> Mutant:
    """Return the mutant of this name."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)

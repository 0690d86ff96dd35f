"""What clients of the control socket, and signals, ask of services that run, beside reloads."""

from __future__ import annotations

from sockmgr.api.types import Verdict
from sockmgr.errors import ControlError
from sockmgr.manager import decisions, scaling
from sockmgr.manager.views import Views


class Orders(Views):
    """The part of a manager that changes what runs of a generation (api.varlink.METHODS).

    `_leaving` says why another manager is about to come; "" if none is.
    """

    _leaving = ""

    async def promote(self, service: str = "") -> Verdict:
        """Give the canary of a service ("": the only one) everything; return the verdict on it.

        Also when another manager is to come, which waits for the verdict, and in a stop that still
        serves: as long as there is a rollout, somebody may decide about it.
        """
        return await decisions.promote(self.services, service)

    async def abort(self, service: str = "", reason: str = "") -> Verdict:
        """Take back the rollout of a service ("": the only one) likewise; return its verdict."""
        return await decisions.abort(self.services, service, reason)

    async def scale(self, service: str, workers: int, relative: bool = False) -> int:
        """Want this many workers, or so many more; return how many are ready in the end."""
        self._refuse_if_stopping()
        found = self._services.find(service)
        # Of what is wanted now, not of what is ready: two that come at once must both count.
        wanted = found.wanted + workers if relative else workers
        await scaling.scale(found, wanted)
        return wanted

    async def restart_worker(self, worker: str) -> str:
        """Replace this worker (`web@7.2`); return the name of its successor when that is done."""
        self._refuse_if_stopping()
        service, place = scaling.place_of(worker)
        return await scaling.restart_worker(self._services.find(service), place)

    async def scale_all(self, more: int) -> None:
        """Want this many more workers of each service."""
        for service in self._services:
            await self.scale(service.name, more, relative=True)

    def _refuse_if_stopping(self) -> None:
        """Raise ControlError if all is to stop, or another manager comes: it would not know."""
        why = self._leaving or ("the manager is stopping" if self.stopping else "")
        if why:
            raise ControlError(why, means="nothing was changed")

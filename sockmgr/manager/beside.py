"""Who else has a listener: what a service asks of those beside it, as after an exchange."""

from __future__ import annotations

from sockmgr.config.spec import Address
from sockmgr.manager.company import Company
from sockmgr.manager.service.service import Service


class Beside:
    """The part of Services that only looks at who has what; all of them are `by_name`."""

    by_name: dict[str, Service]
    _company: Company

    def share(self, address: Address, service: str) -> bool:
        """Return whether another service uses the listener as well."""
        others = (each for each in self.by_name.values() if each.name != service)
        return any(address in each.addresses for each in others)

    def serve(self, address: Address, service: str) -> bool:
        """Return whether another service serves the clients of the listener now."""
        others = (s.fleet for s in self.by_name.values() if s.name != service)
        going = (fleet for fleet in others if not fleet.stopping)
        serving = (g for f in going for g in (f.current, f.trial) if g and g.is_met)
        return any(address == listen.address for g in serving for listen in g.spec.listen)

    def leases_beside(self, service: str) -> frozenset[int]:
        """Return the leases that other services have on listeners of `service`."""
        if not self._share_listeners:
            return frozenset()
        return self._company.leases_beside(service, self.by_name[service].addresses)

    def give_way(self, service: str) -> None:
        """Have other services leave new clients to `service` at the listeners where it is fed."""
        addresses = self.by_name[service].addresses if self._share_listeners else ()
        for each in self.by_name.values():
            if each.name != service and each.addresses.intersection(addresses):
                each.give_way()

    @property
    def _share_listeners(self) -> bool:
        """Whether some have a listener in common, as after an exchange: it is asked each fact."""
        return any(each.fleet.is_beside_others for each in self.by_name.values())

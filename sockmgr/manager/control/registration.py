"""Where systemd 260 and later look for Varlink services: a link there to our control socket.

Owns the link. `varlinkctl list-registry` passes over names that are none of interfaces, and warns
of a link to nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sockmgr.client.places import is_live
from sockmgr.log import Log

REGISTRY = Path("/run/varlink/registry")  # systemd makes it
INTERFACE = "io.sockmgr.Manager"
_ELEMENT = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_VALID = re.compile(rf"{_ELEMENT}(?:\.{_ELEMENT})*")

log = Log("sockmgr")


class Registration:
    """The link of one manager, whose control socket is `control`."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._link: Path | None = None

    def show(self, name: str) -> None:
        """Make the link of the manager called `name`, where there is a registry that is ours."""
        registry = _registry()
        called = INTERFACE if name == "sockmgr" else f"{INTERFACE}.{name.replace('_', '-')}"
        if registry is None or not _VALID.fullmatch(called):
            return
        link, new = registry / called, registry / f".{called}.{os.getpid()}"
        try:
            is_ours = link.is_symlink() and link.readlink() == self._control.absolute()
            # Another manager of this name, with its socket elsewhere, was there first.
            if not is_ours and is_live(os.fspath(link)):
                return
            new.symlink_to(self._control.absolute())
            new.replace(link)
        except OSError as error:
            log.info("not in the Varlink registry", path=link, because=error.strerror)
        else:
            self._link = link

    def withdraw(self) -> None:
        """Remove the link, unless it has become another manager's."""
        link, self._link = self._link, None
        try:
            if link and link.readlink() == self._control.absolute():
                link.unlink()
        except OSError:  # it is gone, or no link any more
            return


def _registry() -> Path | None:
    """Return the registry of our user, None if systemd has none, or an older one runs."""
    if not REGISTRY.is_dir():
        return None
    if os.access(REGISTRY, os.W_OK):
        return REGISTRY
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime or not Path(runtime).is_dir():
        return None
    own = Path(runtime, "varlink/registry")
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return own

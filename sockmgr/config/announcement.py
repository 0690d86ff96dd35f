"""How a worker learns which descriptors are its listeners: by its arguments or its environment.

Pure: a Spec has all that is needed, but for the addresses that the kernel gave to its listeners.
"""

from __future__ import annotations

from collections.abc import Mapping

from sockmgr.config import placeholder
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.spec import Accept, Scheme, Spec, report_pace


def arguments(spec: Spec) -> tuple[str, ...]:
    """Return the command with each `{name}` replaced by the fd that the listener will have."""
    names = (listen.name for listen in spec.listen)
    return placeholder.fill(spec.argv, {name: fd for fd, name in enumerate(names, FIRST_FD)})


def variables(spec: Spec, addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that announce the listeners, but for LISTEN_PID, which spawn adds.

    A command that names a listener gets no variable: Gunicorn dies of EBADF if it learns of a
    descriptor in both ways. `addresses` are the ones that the kernel gave, by listener's name, as
    in `tcp://127.0.0.1:8000`.
    """
    names = tuple(listen.name for listen in spec.listen)
    if spec.accept is Accept.DISPATCH:
        return {
            "SOCKMGR_DISPATCH_FD": str(FIRST_FD),
            "SOCKMGR_DISPATCH_NAMES": ":".join(names),
            "SOCKMGR_DISPATCH_PACE": str(report_pace(spec.policy, spec.max_connections)),
        }
    if not takes_listen_fds(spec.argv, names):
        return {}
    fds = range(FIRST_FD, FIRST_FD + len(names))
    env = {
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
        "EINHORN_FD_COUNT": str(len(names)),
        **{f"EINHORN_FD_{index}": str(fd) for index, fd in enumerate(fds)},
    }
    ports = [
        f"{addresses[listen.name].partition('://')[2]}={fd}"
        for listen, fd in zip(spec.listen, fds, strict=True)
        if _known_to_server_starter(addresses[listen.name])
    ]
    return env | ({"SERVER_STARTER_PORT": ";".join(ports)} if ports else {})


def _known_to_server_starter(address: str) -> bool:
    return address.startswith((f"{Scheme.TCP}://", f"{Scheme.UNIX}://"))


def takes_listen_fds(argv: tuple[str, ...], listen: tuple[str, ...]) -> bool:
    """Tell whether a command gets its listeners by LISTEN_FDS, as it names none of them."""
    return bool(listen) and not placeholder.names(argv)

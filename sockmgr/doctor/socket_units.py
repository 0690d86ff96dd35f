"""Look at the .socket units of a manager: does each fit a listener of the config."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence

from sockmgr.config.config import Config
from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.unit_files import Installed, UnitFile, is_zero, of_text

_KEYS = ("ListenStream", "ListenDatagram")


def listener_of(unit: UnitFile) -> str:
    """Return the name under which the manager gets the sockets of this unit."""
    return unit.last("Socket", "FileDescriptorName", unit.name)  # systemd.socket(5)


def examine(
    config: Config, found: Installed, wanted: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Look at all sockets of one service; `wanted` are the units that we would write."""
    listens = config.listens()
    for unit in found.sockets:
        listen = listens.get(listener_of(unit))
        if listen is None:
            yield _unnamed(unit, config)
            continue
        yield from _address(unit, listen)
        model = _model(listen, wanted)
        user = found.service.last("Service", "User")
        if model is not None and listen.address.traits.is_internet:
            yield from _queues(unit, len(_lines(model)), is_root=user in ("", "root", "0"))
        yield from _limits(unit)
    held = {listener_of(unit) for unit in found.sockets}
    for name in listens if found.sockets else ():
        if name not in held:
            yield _missing(found.service, name)


def _unnamed(unit: UnitFile, config: Config) -> Finding:
    name = listener_of(unit)
    names = ", ".join(config.listens()) or "none"
    return unit.finding(
        Check.SOCKET_NAME,
        f"FileDescriptorName={name} is no listener of the config (it has: {names})",
        "the manager does not know what to do with these sockets, and does not start",
        "make FileDescriptorName= and a name under [listen] the same, or disable the unit",
    )


def _address(unit: UnitFile, listen: Listen) -> Iterator[Finding]:
    for line in sorted(set(_lines(unit))):
        both = unit.last("Socket", "BindIPv6Only") != "ipv6-only"
        if not _same(line, listen.address, both=both):
            yield unit.finding(
                Check.SOCKET_ADDRESS,
                f"it listens on {line}, and listen.{listen.name} is {listen.address}",
                "systemd's address is served, that of the config is not; sockets of several "
                "addresses under one name are refused",
                "write the same address in both, and a .socket unit for each listener",
            )


def _queues(unit: UnitFile, wanted: int, *, is_root: bool) -> Iterator[Finding]:
    lines = len(_lines(unit))
    reuse = unit.is_on("Socket", "ReusePort")
    if lines > 1 and not reuse:
        what = f"{lines} equal addresses without ReusePort=yes"
        why = "the second cannot be bound, so the unit fails"
    elif lines < wanted and not is_root:
        what = f"one address line a queue: there are {lines}, and a rollout takes up to {wanted}"
        why = (
            "the sockets are root's, so the manager cannot add one: cut-overs overlap, and lose "
            "connections with some servers"
            if lines == 1
            else "the manager cannot add one: a reload fails while older generations drain"
        )
    else:
        return
    fix = f"write the address {wanted} times, and ReusePort=yes, as `sockmgr units` does"
    yield unit.finding(Check.SOCKET_QUEUES, what, why, fix)


def _limits(unit: UnitFile) -> Iterator[Finding]:
    interval = unit.last("Socket", "TriggerLimitIntervalSec", "2s")
    burst = unit.last("Socket", "TriggerLimitBurst", "20")
    if not is_zero(interval) and not is_zero(burst):
        yield unit.finding(
            Check.SOCKET_TRIGGER_LIMIT,
            f"TriggerLimitIntervalSec={interval}",
            "a service that fails again and again takes the socket down: connections are refused "
            "until somebody comes",
            f"TriggerLimitIntervalSec=0 (systemctl edit {unit.name})",
        )
    if unit.is_on("Socket", "Accept"):
        yield unit.finding(
            Check.SOCKET_ACCEPT,
            "Accept=yes",
            "systemd accepts each connection itself and starts a manager for it",
            "Accept=no, which is the default",
        )


def _missing(service: UnitFile, name: str) -> Finding:
    return service.finding(
        Check.SOCKET_MISSING,
        f"no .socket unit has FileDescriptorName={name}",
        "the manager opens that listener itself: clients are refused while it restarts",
        "have `sockmgr units` write one",
    )


# --- Addresses -----------------------------------------------------------------------------------


def _lines(unit: UnitFile) -> list[str]:
    return [line for key in _KEYS for line in unit.all("Socket", key)]


def _model(listen: Listen, wanted: Mapping[str, Sequence[str]]) -> UnitFile | None:
    for name, texts in wanted.items():
        unit = of_text(name, texts[0])
        if name.endswith(".socket") and listener_of(unit) == listen.name:
            return unit
    return None


def _same(line: str, address: Address, *, both: bool) -> bool:
    """Return whether a line of systemd has the address of the config; True if that is not sure.

    `both` is whether a socket on [::] takes IPv4 as well.
    """
    match address.scheme:
        case Scheme.UNIX:
            return line == address.path
        case Scheme.ABSTRACT:
            return line == f"@{address.path}"
        case Scheme.FD:
            return True
        case Scheme.TCP | Scheme.UDP:
            host, port = _host_port(line)
            if port != address.port or host is None:
                return False
            everything = both and host == "::" and address.host == "0.0.0.0"  # noqa: S104
            return everything or _is_same_host(host, address.host)


def _host_port(line: str) -> tuple[str | None, int]:
    if line.isdecimal():
        return "::", int(line)  # both families, systemd.socket(5)
    found = re.fullmatch(r"\[?([0-9A-Fa-f:.]+?)(?:%\w+)?\]?:([0-9]+)", line)
    return (found[1], int(found[2])) if found else (None, 0)


def _is_same_host(line: str, host: str) -> bool:
    if host in ("", "*"):
        return line in ("::", "0.0.0.0")  # noqa: S104 - compared, not bound
    try:
        wanted = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        return ipaddress.ip_address(line) == wanted
    except ValueError:  # a name, whose addresses may change
        return True

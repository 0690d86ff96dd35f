"""Look at the config of an nginx or an HAProxy: does it keep idle connections longer than we do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Address
from sockmgr.doctor.finding import Check, Finding
from sockmgr.errors import SockmgrError
from sockmgr.kernel import regular
from sockmgr.launch.call import recognise
from sockmgr.launch.resolve import prepare
from sockmgr.terminal.format import span

LARGEST = 1 << 20  # bytes
_WORDS = re.compile(r"#[^\n]*|[{};]|\"[^\"]*\"?|'[^']*'?|[^\s{};\"'#]+")
_ANYWHERE, _HERE = ("0.0.0.0", "::", ""), ("localhost", "127.0.0.1", "::1")  # noqa: S104


class Upstream(NamedTuple):
    """A server behind a proxy: its address as that has it, and how long it keeps idle connections.

    `setting` is the one that says so.
    """

    address: str
    idle: float
    setting: str


def examine(config: Config, file: Path) -> Iterator[Finding]:
    """Compare a proxy's config with ours; raise SockmgrError if it cannot be read."""
    try:
        text = regular.read(file, LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SockmgrError(f"cannot read {file}: {why}") from error
    is_nginx = re.search(
        r"^[^\S\n]*(?:upstream|http|server|location)\b[^\n;#]*\{", text, re.MULTILINE
    )
    behind = list(_nginx(text, cache(_keeps_unasked)) if is_nginx else _haproxy(text))
    pairs = [
        (one, service)
        for one in behind
        for service in config.services
        for listen in config.listen
        if listen.name in service.listen and _leads_to(one.address, listen.address)
    ]
    for one, service in pairs:
        yield from _finding(one, service, _own_settings(config, service), file)
    if not pairs:
        yield Check.PROXY_ELSEWHERE.found(
            subject=str(file),
            what=f"no upstream in {file} is a listener of this config",
            why="nothing there could be compared",
            fix="name the file with the `upstream` of nginx, or the `backend` of HAProxy",
        )


def _finding(
    one: Upstream, service: ServiceConfig, given: Mapping[str, str], file: Path
) -> Iterator[Finding]:
    ours, key = _keep_alive(service, given)
    setting = one.setting.partition(",")[0]
    if ours is not None and one.idle >= ours:
        yield Check.PROXY_KEEP_ALIVE.found(
            subject=f"service.{service.name}",
            what=f"{file} keeps idle connections to {one.address} for {one.idle:g} s "
            f"({one.setting}), and service.{service.name} for {ours:g} s",
            why="a request that is sent just as the server closes is lost: 502",
            fix=f"set {key} above {one.idle:g} s, or {setting} below {ours:g} s",
        )


def _own_settings(config: Config, service: ServiceConfig) -> Mapping[str, str]:
    with suppress(SockmgrError):  # doctor/config has a finding for that
        _, given = prepare(service, config.listens(), os.environ).own_config
        return given
    return {}


def _keep_alive(service: ServiceConfig, given: Mapping[str, str]) -> tuple[float | None, str]:
    """Return how long a service keeps idle connections, None if not known, and what sets that."""
    if service.app:
        return service.http.keep_alive, f"keep_alive under [service.{service.name}.http]"
    call = recognise(service.command)
    if call is None or not call.server.keep_alive:
        return None, ""
    option, default = call.server.keep_alive
    told = call.value(option) or given.get(option[2:].replace("-", ""), "")
    number = re.fullmatch(r"\d{1,9}", told)
    return float(number[0]) if number else default, option


def _leads_to(text: str, ours: Address) -> bool:
    if path := re.fullmatch(r"(?:unix[:@])(/.+?)(?::\d*)?", text):
        return path[1] == ours.path
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    same = host == ours.host or ours.host in _ANYWHERE or {host, ours.host} <= set(_HERE)
    return port == str(ours.port) and same


def _keeps_unasked() -> bool:
    """Return whether the nginx here keeps connections without being told; True without one here."""
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            ["nginx", "-v"], capture_output=True, text=True, timeout=5, check=True
        )
        if version := re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", told.stderr):
            return tuple(map(int, version.groups())) >= (1, 29, 7)
    return True


def _nginx(text: str, keeps_unasked: Callable[[], bool]) -> Iterator[Upstream]:
    """Yield the servers of each `upstream` that keeps connections: ngx_http_upstream_module."""
    block: dict[str, list[str]] | None = None
    words: list[str] = []
    for found in _WORDS.findall(text):
        if found == "{":
            block = {} if words[:1] == ["upstream"] else None
        elif found == "}":
            asked = block.get("keepalive") if block else ["0"]
            if block and (asked != ["0"] if asked else keeps_unasked()):
                idle = _time(block.get("keepalive_timeout", ["60s"])[0], 1.0)
                setting = f"keepalive_timeout{'' if asked else ', by default from nginx 1.29.7 on'}"
                yield from (Upstream(a, idle, setting) for a in block.get("server", ()))
            block = None
        elif found == ";":
            if block is not None and len(words) > 1:
                block.setdefault(words[0], []).append(words[1])
        else:
            words += [found.strip("\"'")] if found[0] != "#" else []
            continue
        words = []


def _haproxy(text: str) -> Iterator[Upstream]:
    """Yield the servers of each section; the time of its clients is that of idle connections."""
    names = ("http-keep-alive", "http-request", "client")
    defaults, here = dict[str, str](), dict[str, str]()
    servers: list[tuple[str, dict[str, str]]] = []
    for line in text.split("\n"):
        words = line.partition("#")[0].split()[:4]
        if words[:1] == ["defaults"]:
            here = defaults = {}
        elif words and words[0] in ("frontend", "backend", "listen"):
            here = dict(defaults)
        elif words[:1] == ["timeout"] and len(words) > 2:
            here[words[1]] = words[2]
        elif words[:1] == ["server"] and len(words) > 2:
            servers.append((words[2], here))
    for address, timeouts in servers:
        name = next((name for name in names if name in timeouts), "")
        if name:
            yield Upstream(address, _time(timeouts[name], 0.001), f"timeout {name}")


def _time(text: str, unit: float) -> float:
    """Return seconds; a number without a unit is of `unit`."""
    return float(text) * unit if text.isdecimal() else span(text) or 0.0

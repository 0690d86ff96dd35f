"""Look at an installed .service: does it start the manager, restart it, and permit what it needs.

Units that `sockmgr units` did not write are held to the same standards, matters of taste aside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sockmgr.config.config import Config
from sockmgr.doctor import resources, socket_units
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.start import open_files
from sockmgr.doctor.unit_files import Installed, UnitFile, given_config, is_zero, of_text, program
from sockmgr.errors import ConfigError
from sockmgr.kernel.accounts import user_number
from sockmgr.launch.executable import find
from sockmgr.launch.interpreter import shebang
from sockmgr.launch.virtual_env import searched
from sockmgr.systemd.unit import running_version, shown
from sockmgr.systemd.units import COMPILES, HOMES, NOTIFY_RELOAD, POLL_LIMIT, SEARCHED, Place, units
from sockmgr.terminal.format import span

DEFAULT_OPEN_FILES = "524288"  # the hard one of DefaultLimitNOFILE=, systemd-system.conf(5)
_WRITABLE = ("ReadWritePaths", "StateDirectory", "CacheDirectory", "LogsDirectory")
_KILLS = {
    "control-group": "systemd itself signals every process of every worker at a stop, and kills "
    "all of them with the manager; the manager is to drain them",
    "mixed": "what a manager leaves that died is killed, though the next one could adopt it",
    "process": "what a manager leaves that died goes on, and nobody looks after it",
    "none": "a stop ends nobody, and what is left is in the way of the next manager",
}


def examine(config: Config, found: Installed, version: int | None) -> Iterator[Finding]:
    """Look at a service and its sockets; `version` is that of systemd (None: ask systemctl)."""
    wanted = _wanted(config, found)
    if outdated := list(_outdated(found, wanted)):
        yield _reinstall(found.service, outdated)
        return
    service = found.service
    yield from _program(service)
    yield from _type(service, version)
    yield from _reload(service)
    yield from _life(service)
    if model := wanted.get(service.name):
        yield from _survivors(service, of_text(service.name, model[0]))
    yield from _account(service, config)
    yield from _sandbox(service, config)
    yield from _umask(service, config)
    yield from resources.of_unit(service, config.services, version)
    yield from _workers_program(service, config)
    if limit := _open_files(service):
        yield from open_files(config, limit, service.name, Check.UNIT_OPEN_FILES)
    yield from socket_units.examine(config, found, wanted)


def state(service: str) -> Iterator[Finding]:
    """Ask systemd whether a service has failed, or fails at each start."""
    told = shown(service, "ActiveState", "SubState", "Result", "NRestarts")
    if told.get("ActiveState") == "failed":
        what = f"has failed ({told.get('Result')}), and is not started again"
    elif told.get("SubState", "").startswith("auto-restart"):
        what = f"does not stay, and is started again: {told.get('NRestarts')} times so far"
    else:
        return
    yield Check.UNIT_FAILS.found(
        subject=service,
        what=f"{service} {what}",
        why="there is no manager: nothing is reloaded, and a worker that dies is not replaced",
        fix=f"see journalctl -u {service} -p err -n 20, and then systemctl restart {service}",
    )


# --- What `sockmgr units` would write now ------------------------------------------------------


def _wanted(config: Config, found: Installed) -> dict[str, list[str]]:
    """Return the texts that `sockmgr units` would write for this place and any systemd, by name."""
    # By the main file alone: a drop-in came after it was written.
    service = of_text(found.service.name, found.service.text)
    words = program(service)
    start = words.index("run")
    wanted: dict[str, list[str]] = {}
    for version in (NOTIFY_RELOAD - 1, POLL_LIMIT - 1, POLL_LIMIT):
        place = Place(
            program=tuple(words[:start]),
            config=given_config(words),
            path=_path(service),
            user=service.last("Service", "User"),
            group=service.last("Service", "Group"),
            version=version,
        )
        try:
            written = units(config, place)
        except ConfigError:  # a unit cannot have one of the listeners: there is no standard then
            return {}
        for name, text in written.items():
            wanted.setdefault(name, []).append(text)
    return wanted


def _outdated(found: Installed, wanted: dict[str, list[str]]) -> Iterator[str]:
    """Yield the files that we wrote, and now would write differently or not at all."""
    for unit in (found.service, *found.sockets):
        if unit.is_ours and wanted and unit.text not in wanted.get(unit.name, ()):
            yield unit.name
    there = {unit.name for unit in found.sockets}
    if found.service.is_ours:
        yield from (n for n in wanted if n.endswith(".socket") and n not in there)


def _reinstall(service: UnitFile, outdated: list[str]) -> Finding:
    directory = service.path.parent
    config = given_config(program(of_text(service.name, service.text)))
    return Check.UNIT_OUTDATED.found(
        subject=str(directory),
        what=f"not as `sockmgr units` would write them now: {', '.join(sorted(outdated))}",
        why="the config, or sockmgr, has changed since: systemd still does what the old ones say",
        fix=f"sockmgr units -c {config} --install --dir {directory}, with the other options of "
        "the first time; then what it tells",
    )


# --- Start, reload, life -------------------------------------------------------------------------


def _program(service: UnitFile) -> Iterator[Finding]:
    words = program(service)
    path = shutil.which(words[0], path=SEARCHED)
    if path is None:
        where = "" if "/" in words[0] else f" in {SEARCHED}"
        yield service.finding(
            Check.UNIT_PROGRAM,
            f"ExecStart= runs {words[0]}, which is not there{where}",
            "systemd cannot start it",
            "write the whole path of sockmgr, or have `sockmgr units` write the unit",
        )


def _type(service: UnitFile, version: int | None) -> Iterator[Finding]:
    kind = service.last("Service", "Type", "simple")
    if kind == "notify-reload" and version is None:
        version = running_version()
    if kind == "notify-reload" and version is not None and version < NOTIFY_RELOAD:
        why = f"systemd {version} ignores the line, and never hears that it is ready"
    elif kind not in ("notify", "notify-reload"):
        why = "systemd takes it for started before it serves, and hears nothing of its state"
    else:
        return
    yield service.finding(Check.UNIT_TYPE, f"Type={kind}", why, _line("Type=notify", service))


def _reload(service: UnitFile) -> Iterator[Finding]:
    words = service.words("ExecReload")
    if service.last("Service", "Type") == "notify-reload":
        return
    if not words:
        what, why = "there is no ExecReload=", "systemctl reload fails: it does not know how"
    elif Path(words[0].lstrip("@-:+!")).name == "kill":
        what = "ExecReload= only sends a signal"
        why = "systemctl reload succeeds at once, also if the reload is aborted later"
    else:
        return
    start = program(service)
    call = " ".join(start[: start.index("run")])
    fix = _line(f"ExecReload={call} reload -c CONFIG", service)
    yield service.finding(Check.UNIT_RELOAD, what, why, fix)


def _life(service: UnitFile) -> Iterator[Finding]:
    restart = service.last("Service", "Restart", "no")
    if restart in ("no", "on-success", "on-watchdog"):
        yield service.finding(
            Check.UNIT_RESTART,
            f"Restart={restart}",
            "a manager that is killed is not started again, and its workers are replaced by nobody",
            _line("Restart=always", service),
        )
    interval = (
        service.last("Unit", "StartLimitIntervalSec")
        or service.last("Unit", "StartLimitInterval")
        or service.last("Service", "StartLimitInterval", "10s")
    )
    burst = service.last("Unit", "StartLimitBurst", "5")
    if _limit_can_be_hit(service, interval, burst):
        yield service.finding(
            Check.UNIT_START_LIMIT,
            f"StartLimitIntervalSec={interval}",
            "a few failed starts put it into `failed`, and its sockets with it: connections are "
            "refused until somebody comes",
            _line("StartLimitIntervalSec=0 in [Unit]", service),
        )


def _limit_can_be_hit(service: UnitFile, interval: str, burst: str) -> bool:
    """Return whether restarts alone can be frequent enough to reach the start limit."""
    if is_zero(interval) or is_zero(burst):
        return False
    pause, within = span(service.last("Service", "RestartSec", "100ms")), span(interval)
    if pause is None or within is None or not burst.isdecimal():
        return True
    return pause * int(burst) < within


def _survivors(service: UnitFile, model: UnitFile) -> Iterator[Finding]:
    """Compare with `model` the settings that decide what workers become without a manager."""
    mode = service.last("Service", "KillMode", "control-group")
    if mode != (wanted := model.last("Service", "KillMode")):
        why = _KILLS.get(mode, "systemd does not know it")
        fix = _line(f"KillMode={wanted}", service)
        yield service.finding(Check.UNIT_KILL_MODE, f"KillMode={mode}", why, fix)
    room = model.last("Service", "FileDescriptorStoreMax", "0")
    given = service.last("Service", "FileDescriptorStoreMax", "0")
    if room.isdecimal() and given.isdecimal() and int(given) < int(room):
        yield service.finding(
            Check.UNIT_FD_STORE,
            f"FileDescriptorStoreMax={given}, and this config may need {room}",
            "what does not fit is closed without a word: the next manager does not find it",
            _line(f"FileDescriptorStoreMax={room}", service),
        )
    if mode == "process":
        yield from _taken_from_survivors(service)
    policy = service.last("Service", "OOMPolicy", "stop")
    if policy != "continue" and model.last("Service", "OOMPolicy") == "continue":
        yield service.finding(
            Check.UNIT_OOM,
            f"OOMPolicy={policy}",
            "if the kernel kills one worker because memory is short, systemd ends the service",
            _line("OOMPolicy=continue", service),
        )


def _taken_from_survivors(service: UnitFile) -> Iterator[Finding]:
    private = service.last("Service", "PrivateTmp", "no").lower()
    if service.is_on("Service", "DynamicUser"):
        what, fix = "DynamicUser=yes", "a User= of its own"
    elif private not in ("no", "0", "false", "off", "n", "f"):
        what, fix = f"PrivateTmp={private}", "PrivateTmp=no"
    elif service.is_on("Service", "RemoveIPC"):
        what, fix = "RemoveIPC=yes", "RemoveIPC=no"
    else:
        return
    yield service.finding(
        Check.UNIT_PRIVATE_TMP,
        what,
        "workers live on when the manager is restarted, and their files in /tmp or their shared "
        "memory are deleted then",
        _line(fix, service),
    )


# --- Who, where and with what --------------------------------------------------------------------


def _account(service: UnitFile, config: Config) -> Iterator[Finding]:
    user = service.last("Service", "User")
    if user and not service.is_on("Service", "DynamicUser") and user_number(user) is None:
        yield service.finding(
            Check.UNIT_USER,
            f"there is no user {user}",
            "systemd cannot start it (status 217/USER)",
            f"add the user: contrib/systemd/sysusers.d has sockmgr; or {_line('User=', service)}",
        )
        return
    if user in ("", "root", "0"):
        return
    for each in config.services:
        if each.user not in ("", user):
            yield service.finding(
                Check.UNIT_USER,
                f"User={user}, and service.{each.name}.user = {each.user}",
                "only root can start workers of another user: the manager does not start",
                f"leave User= out, or service.{each.name}.user",
            )


def _sandbox(service: UnitFile, config: Config) -> Iterator[Finding]:
    families = service.words("RestrictAddressFamilies")
    named = "AF_NETLINK" in (word.removeprefix("~") for word in families)
    if families and named == families[0].startswith("~"):  # ~: the list is of what is forbidden
        yield service.finding(
            Check.UNIT_NETLINK,
            "RestrictAddressFamilies= does not allow AF_NETLINK",
            "half-open connections are not seen, so old workers drain 10 s later; queues of unix "
            "listeners are not seen at all",
            _line("RestrictAddressFamilies=AF_NETLINK", service),
        )
    if service.is_on("Service", "MemoryDenyWriteExecute"):
        for each in config.services:
            if compiler := next(filter(COMPILES.fullmatch, each.command[:2]), None):
                yield service.finding(
                    Check.UNIT_COMPILES,
                    f"MemoryDenyWriteExecute=yes, and service.{each.name} runs {compiler}",
                    "it compiles at run time, and crashes at its start",
                    _line("MemoryDenyWriteExecute=no", service),
                )
    if service.last("Service", "ProtectHome").lower() in ("yes", "true", "on", "1", "tmpfs"):
        words = [w for s in config.services for w in (s.cwd, *s.command)]
        if hidden := next((w for w in (*program(service), *words) if w.startswith(HOMES)), None):
            yield service.finding(
                Check.UNIT_HOME,
                f"ProtectHome= hides {hidden}",
                "neither the manager nor its workers can open what is in a home",
                _line("ProtectHome=read-only", service),
            )


def _umask(service: UnitFile, config: Config) -> Iterator[Finding]:
    places = [each for key in _WRITABLE for each in service.all("Service", key)]
    private = service.last("Service", "UMask", "022").lstrip("0") == "77"
    names = [each.name for each in config.services if each.umask is None]
    if places and private and names:
        yield service.finding(
            Check.UNIT_UMASK,
            f"UMask=0077, and workers may write to {', '.join(places)}",
            "what they write there (uploads) no other user can read, a proxy for example",
            f'umask = "022" in service.{names[0]}, if others are to; "077" there says that none is',
        )


def _workers_program(service: UnitFile, config: Config) -> Iterator[Finding]:
    if service.all("Service", "EnvironmentFile") or service.all("Service", "PassEnvironment"):
        return  # these may set PATH
    words = program(service)
    start = shutil.which(words[0], path=SEARCHED)
    python = shebang(start) or start or ""
    for each in config.services:
        path = searched(each, _path(service) or SEARCHED)
        if each.app:
            continue  # it runs in our own Python
        name = each.command[0]
        # find() would look beside our own Python, and the unit may run sockmgr in another one.
        places = [*path.split(os.pathsep), str(Path(python).parent)]
        found = find(name, {"PATH": os.pathsep.join(places)}, each.cwd or "/")
        if "/" not in name and (found is None or str(Path(found).parent) not in places):
            yield service.finding(
                Check.UNIT_PATH,
                f"{name} of service.{each.name} is not in {path}",
                "systemd's PATH is not that of a shell: no worker starts",
                f"write the whole path in `command`, or {_line('Environment=PATH=...', service)}",
            )


def _path(service: UnitFile) -> str:
    found = [w.partition("=")[2] for w in service.words("Environment") if w.startswith("PATH=")]
    return found[-1] if found else ""


def _open_files(service: UnitFile) -> int:
    text = service.last("Service", "LimitNOFILE", DEFAULT_OPEN_FILES).rpartition(":")[2]
    return int(text) if text.isdecimal() else 0


def _line(line: str, unit: UnitFile) -> str:
    return f"{line} (systemctl edit {unit.name})"

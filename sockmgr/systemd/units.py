"""The systemd units that fit a config, as text: a .socket a listener, one .service, drop-ins.

Looks at nothing outside its arguments. `sockmgr units` (cli/units) installs the files.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sockmgr.config.company import longest_stop
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.probe import HttpProbe, TcpProbe
from sockmgr.config.spec import Accept, Exec, Listen, Scheme
from sockmgr.errors import ConfigError
from sockmgr.systemd import unit_lines as lines

OLDEST = 252  # the oldest systemd that the units were run on
NOTIFY_RELOAD = 253  # the first systemd with Type=notify-reload: NEWS of systemd 253
DELEGATE_SUBGROUP = 254  # the first systemd with DelegateSubgroup=: NEWS of systemd 254
POLL_LIMIT = 255  # the first systemd with PollLimitIntervalSec=: NEWS of systemd 255
# What systemd gives a service without Environment=PATH=, systemd.exec(5).
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER = "sockmgr"  # made by contrib/systemd/sysusers.d
_MARK = "# Written by `sockmgr units`, checksum "
# Programs that compile at run time, and so execute memory that they have just written.
COMPILES = re.compile(
    r"(?:.*/)?(?:node|nodejs|npm|npx|yarn|pnpm|deno|bun|bunx|java|dotnet|pypy|luajit|julia)[0-9.]*"
)
HOMES = ("/home/", "/root/", "/run/user/")  # what ProtectHome= hides


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the units are to work, as far as the config does not say it.

    `program` are the words that start sockmgr, `config` is the path of its config, `path` the PATH
    of the workers ("": systemd's own), `user` the manager's user ("": as the config says),
    `version` the version of systemd, `notify_reload` whether there is a Type=notify-reload drop-in.
    """

    program: tuple[str, ...]
    config: str
    path: str = ""
    user: str = ""
    group: str = ""
    version: int = OLDEST
    notify_reload: bool = False


def units(config: Config, place: Place) -> dict[str, str]:
    """Return the text of each file by its path below the directory of units, sockets first.

    Raises ConfigError.
    """
    if place.notify_reload and place.version < NOTIFY_RELOAD:
        raise ConfigError(
            f"systemd {place.version} does not know Type=notify-reload",
            means="it would ignore the line, and never hear that the service is ready",
            do=f"leave --notify-reload out; it needs systemd {NOTIFY_RELOAD}",
        )
    pair = _Pair(config, place)
    texts = {pair.socket_name(listen): pair.socket(listen) for listen in config.listen}
    texts[pair.service_name] = pair.service()
    if place.notify_reload:
        texts[f"{pair.service_name}.d/notify-reload.conf"] = NOTIFY_RELOAD_DROP_IN
    return {
        name: f"{_MARK}{_checksum(text)}: change drop-ins, not this file.\n{text}"
        for name, text in texts.items()
    }


def is_ours(text: str) -> bool:
    """Return whether `sockmgr units` wrote a file that nobody has changed since."""
    first, _, rest = text.partition("\n")
    return first.startswith(f"{_MARK}{_checksum(rest)}:")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Pair:
    """The .service and the .socket units of one config. The `user` "" is root."""

    def __init__(self, config: Config, place: Place) -> None:
        self.config, self.place = config, place
        self.service_name = f"{config.name}.service"
        self.user, self.group = self._account()
        self.clients = [group for group in (config.control.group, config.control.readers) if group]

    def _account(self) -> tuple[str, str]:
        if self.place.user:
            return self.place.user, self.place.group
        accounts = {(service.user, service.group) for service in self.config.services}
        if accounts == {("", "")}:
            return USER, self.place.group
        user, group = accounts.pop()
        # Only root can give services different users.
        return ("", "") if accounts or not user else (user, group)

    # --- .socket ---------------------------------------------------------------------------------

    def socket_name(self, listen: Listen) -> str:
        # A unit has one FileDescriptorName=. In any case it is named, so a second one renames none.
        return f"{self.config.name}-{listen.name}.socket"

    def socket(self, listen: Listen) -> str:
        return _text(
            "[Unit]",
            f"Description=socket {listen.name} of {self.service_name}",
            "",
            "[Socket]",
            *self._addresses(listen),
            "# The name under [listen] in the config.",
            f"FileDescriptorName={listen.name}",
            f"Service={self.service_name}",
            *self._options(listen),
            *lines.TRIGGER_LIMIT,
            *(lines.POLL_LIMITS if self.place.version >= POLL_LIMIT else ()),
            "",
            "[Install]",
            "WantedBy=sockets.target",
        )

    def _addresses(self, listen: Listen) -> Iterator[str]:
        traits = listen.address.traits
        key = "ListenDatagram" if traits.is_datagram else "ListenStream"
        leases = max(_leases(s) for s in self.config.services if listen.name in s.listen)
        number = leases if traits.is_internet else 1
        yield from lines.QUEUES if number > 1 else ()
        yield from [f"{key}={_systemds_address(listen)}"] * number
        yield from ["ReusePort=yes"] if number > 1 else []
        if listen.address.host == "::":
            yield "BindIPv6Only=both"

    def _options(self, listen: Listen) -> Iterator[str]:
        traits = listen.address.traits
        if traits.is_stream:
            yield f"Backlog={listen.backlog}"
        if traits.is_stream and traits.is_internet:
            yield from ("KeepAlive=yes", "NoDelay=yes")
        if traits.has_path:
            yield f"SocketMode={0o660 if listen.mode is None else listen.mode:04o}"
            user, group = listen.user or self.user, listen.group or self.group
            yield from [f"SocketUser={user}"] if user else []
            yield from [f"SocketGroup={group}"] if group else []
            yield "RemoveOnStop=yes"

    # --- .service --------------------------------------------------------------------------------

    def service(self) -> str:
        sockets = [self.socket_name(listen) for listen in self.config.listen]
        command, file = " ".join(map(_word, self.place.program)), _word(self.place.config)
        # At TimeoutStopSec= systemd sends SIGKILL, so it must end after all deadlines of ours.
        directory, longest = runtime_directory(self.config.name), longest_stop(self.config.services)
        return _text(
            "[Unit]",
            f"Description=sockmgr: {self.config.name}",
            *(lines.SOCKETS if sockets else ()),
            *(f"{key}={' '.join(sockets)}" for key in ("Wants", "PartOf") if sockets),
            f"After={' '.join([*sockets, 'network.target'])}",
            *lines.START_LIMIT,
            "",
            "[Service]",
            "Type=notify",
            f"ExecStart={command} run -c {file}",
            "# Waits for the verdict, and fails if the reload was aborted.",
            f"ExecReload={command} reload -c {file}",
            *lines.LIFE,
            f"TimeoutStopSec={self.config.stop_delay + longest + 30:g}",
            f"FileDescriptorStoreMax={_store_size(self.config)}",
            "",
            *self._own(),
            *lines.SURVIVORS,
            f"RuntimeDirectory={directory}",
            f"RuntimeDirectoryMode={'0700' if self.user and not self.clients else '0711'}",
            "RuntimeDirectoryPreserve=restart",
            f"Environment=TMPDIR=%t/{directory}",
            *lines.RESOURCES,
            *lines.DELEGATION,
            *(lines.SUBGROUP if self.place.version >= DELEGATE_SUBGROUP else ()),
            "",
            *self._hardening(),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        )

    def _own(self) -> Iterator[str]:
        if not self.user:
            yield "# Root, because the config gives its services users of their own."
        else:
            yield f"User={self.user}"
            yield from [f"Group={self.group}"] if self.group else []
            yield from [f"SupplementaryGroups={' '.join(self.clients)}"] if self.clients else []
        if self.place.path:
            yield f"Environment={_word(f'PATH={self.place.path}', command=False)}"
        if any(not service.cwd for service in self.config.services):
            yield f"WorkingDirectory={_plain(self.place.config.rpartition('/')[0] or '/')}"

    def _hardening(self) -> Iterator[str]:
        commands = [word for service in self.config.services for word in service.command[:2]]
        asks = any(map(asks_workers, self.config.services))
        for line in lines.HARDENING:
            match line:
                case "ProtectHome=yes" if any(path.startswith(HOMES) for path in self._paths()):
                    yield "ProtectHome=read-only"
                case "CapabilityBoundingSet=" if not self.user:
                    yield f"{line}CAP_CHOWN {lines.CAPABILITIES}"
                case "CapabilityBoundingSet=" if asks:
                    yield from lines.ASKING
                case "SystemCallFilter=~@privileged":
                    yield from [line] if self.user else []
                    yield from ["SystemCallFilter=@chown"] if self.user and self.clients else []
                    # Behind what takes it away.
                    yield from ["SystemCallFilter=bpf"] if self.user and asks else []
                case "MemoryDenyWriteExecute=yes" if any(map(COMPILES.fullmatch, commands)):
                    yield "MemoryDenyWriteExecute=no"
                case _:
                    yield line

    def _paths(self) -> Iterator[str]:
        yield from (self.place.config, *self.place.program, *self.place.path.split(":"))
        for service in self.config.services:
            yield from (service.cwd, *service.command)


NOTIFY_RELOAD_DROP_IN = f"""\
# For systemd {NOTIFY_RELOAD} and later: `systemctl reload` sends HUP and waits for READY=1.
# It returns 0 also if the reload was aborted, because systemd has no word for that: see
# `systemctl status`.
[Service]
Type=notify-reload
ExecReload=
"""


# --- Words ---------------------------------------------------------------------------------------


def runtime_directory(name: str) -> str:
    """Return the RuntimeDirectory= of the manager called `name`; each unit removes its own."""
    return "sockmgr" if name == "sockmgr" else f"sockmgr-{name}"


def _leases(service: ServiceConfig) -> int:
    """Return how many queues of each listener a service may have in use at a time."""
    # The generation that serves, the next one, those that drain, and one that is being killed
    # because more than max_draining drained. An exclusive service has one generation at a time.
    generations = 1 if service.rollout.exclusive else 3 + service.rollout.max_draining
    return generations * (1 if service.accept is Accept.SHARED else service.workers_at_most)


def asks_workers(service: ServiceConfig) -> bool:
    """Return whether workers are asked by queues of their own, the places of which are needed."""
    asked = isinstance(service.ready, HttpProbe | TcpProbe | Exec) or service.rollout.warmup
    return service.accept is not Accept.DISPATCH and bool(asked or service.healthy)


def _store_size(config: Config) -> int:
    """Return twice as many descriptors as the manager may have systemd hold.

    Each worker of each generation that may run at a time has a pidfd, an output and the ends of its
    channel. There are each queue, two move queues a service, the state, the notify socket, and what
    guard and dispatcher need. Twice: a high limit costs nothing, what exceeds a low one is lost.
    """
    wanted = 6
    for service in config.services:
        workers = service.workers_at_most * (3 + service.rollout.max_draining)
        wanted += workers * (4 if service.accept is Accept.DISPATCH else 2)
        wanted += len(service.listen) * _leases(service) + 4
    return max(512, 2 * wanted)


def _systemds_address(listen: Listen) -> str:
    match listen.address.scheme:
        case Scheme.TCP | Scheme.UDP:
            return _host_port(listen)
        case Scheme.UNIX:
            return _plain(listen.address.path)
        case Scheme.ABSTRACT:
            return f"@{_plain(listen.address.path)}"
        case Scheme.FD:
            raise ConfigError(
                f"listen.{listen.name} = {listen.address}: a unit cannot name a descriptor",
                do="write the address that it has",
            )


def _host_port(listen: Listen) -> str:
    host, port = listen.address.host, listen.address.port
    shown = f"listen.{listen.name} = {listen.address}"
    if port == 0:
        raise ConfigError(f"{shown}: a unit needs a port", do="write another port than 0")
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ConfigError(
            f"{shown}: systemd takes addresses, not names", do=f"write the address of {host}"
        ) from None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _text(*written: str) -> str:
    return "\n".join(written) + "\n"


def _plain(text: str) -> str:
    """Return `text` with each % doubled, so that systemd.unit(5) sees no specifier in it."""
    return text.replace("%", "%%")


def _word(text: str, *, command: bool = True) -> str:
    """Return `text` as one word of a line that is split into words (systemd.syntax(7))."""
    text = _plain(text).replace("$", "$$") if command else _plain(text)
    if re.search(r"[\s\"'\\;]", text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text

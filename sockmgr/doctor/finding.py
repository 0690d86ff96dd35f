"""The kinds of finding, and one finding: what is wrong, why it matters, and the fix.

docs/doctor.md has a row for each kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Patient(StrEnum):
    """What is looked at."""

    CONFIG = "config"
    MACHINE = "machine"
    UNITS = "units"
    WORKERS = "workers"


class Severity(StrEnum):
    """A problem loses requests, or will not work; a note is worth knowing."""

    PROBLEM = "problem"
    NOTE = "note"


class Check(Enum):
    """One kind of finding: its name in `--json`, its patient and its severity."""

    CONFIG = "config", Patient.CONFIG
    COMMAND = "command", Patient.CONFIG
    FLAGS = "flags", Patient.CONFIG
    GRACEFUL_TIMEOUT = "graceful-timeout", Patient.CONFIG
    SHORT_DRAIN = "short-drain", Patient.CONFIG
    READY_FILE = "ready-file", Patient.CONFIG
    READY_GUESS = "ready-guess", Patient.CONFIG, Severity.NOTE
    OTHER_RELEASE = "other-release", Patient.CONFIG
    PROXY_UNBELIEVED = "proxy-unbelieved", Patient.CONFIG, Severity.NOTE
    PROXY_KEEP_ALIVE = "proxy-keep-alive", Patient.CONFIG
    PROXY_ELSEWHERE = "proxy-elsewhere", Patient.CONFIG, Severity.NOTE

    PIDFD = "pidfd", Patient.MACHINE
    STEERING = "steering", Patient.MACHINE
    ROUND_ROBIN = "round-robin", Patient.MACHINE, Severity.NOTE
    SOCK_DIAG = "sock-diag", Patient.MACHINE
    UNSEEN_WORKERS = "unseen-workers", Patient.MACHINE
    BECOME_USER = "become-user", Patient.MACHINE
    SOMAXCONN = "somaxconn", Patient.MACHINE
    ABORT_ON_OVERFLOW = "abort-on-overflow", Patient.MACHINE
    OUTGOING_PORT = "outgoing-port", Patient.MACHINE, Severity.NOTE
    ADDRESS_ABSENT = "address-absent", Patient.MACHINE, Severity.NOTE
    CANNOT_LISTEN = "cannot-listen", Patient.MACHINE
    NO_CONTROL = "no-control", Patient.MACHINE
    SOCKET_PRIVATE = "socket-private", Patient.MACHINE, Severity.NOTE
    OPEN_FILES = "open-files", Patient.MACHINE
    NO_CONTROLLER = "no-controller", Patient.MACHINE

    UNIT_FAILS = "unit-fails", Patient.UNITS
    UNIT_OUTDATED = "unit-outdated", Patient.UNITS
    UNIT_PROGRAM = "unit-program", Patient.UNITS
    UNIT_TYPE = "unit-type", Patient.UNITS
    UNIT_RELOAD = "unit-reload", Patient.UNITS
    UNIT_RESTART = "unit-restart", Patient.UNITS
    UNIT_START_LIMIT = "unit-start-limit", Patient.UNITS
    UNIT_KILL_MODE = "unit-kill-mode", Patient.UNITS
    UNIT_FD_STORE = "unit-fd-store", Patient.UNITS
    UNIT_PRIVATE_TMP = "unit-private-tmp", Patient.UNITS
    UNIT_OOM = "unit-oom", Patient.UNITS
    UNIT_DELEGATE = "unit-delegate", Patient.UNITS
    UNIT_USER = "unit-user", Patient.UNITS
    UNIT_NETLINK = "unit-netlink", Patient.UNITS
    UNIT_COMPILES = "unit-compiles", Patient.UNITS
    UNIT_UMASK = "unit-umask", Patient.UNITS, Severity.NOTE
    UNIT_HOME = "unit-home", Patient.UNITS
    UNIT_PATH = "unit-path", Patient.UNITS
    UNIT_OPEN_FILES = "unit-open-files", Patient.UNITS
    SOCKET_NAME = "socket-name", Patient.UNITS
    SOCKET_ADDRESS = "socket-address", Patient.UNITS
    SOCKET_QUEUES = "socket-queues", Patient.UNITS
    SOCKET_TRIGGER_LIMIT = "socket-trigger-limit", Patient.UNITS
    SOCKET_ACCEPT = "socket-accept", Patient.UNITS
    SOCKET_MISSING = "socket-missing", Patient.UNITS, Severity.NOTE

    MANAGER_GONE = "manager-gone", Patient.WORKERS
    MANAGER_SILENT = "manager-silent", Patient.WORKERS
    MANAGER_UNREACHABLE = "manager-unreachable", Patient.WORKERS
    MANAGER_ELSEWHERE = "manager-elsewhere", Patient.WORKERS, Severity.NOTE
    NO_WAY_TO_WORKERS = "no-way-to-workers", Patient.WORKERS
    SOCKETS_ASTRAY = "sockets-astray", Patient.WORKERS
    MANAGER_OPEN_FILES = "manager-open-files", Patient.WORKERS
    NOT_LIMITED = "not-limited", Patient.WORKERS
    SERVICE_DOWN = "service-down", Patient.WORKERS
    SERVICE_DEGRADED = "service-degraded", Patient.WORKERS
    HOOK_FAILS = "hook-fails", Patient.WORKERS
    CODE_REFUSED = "code-refused", Patient.WORKERS
    PORT_TAKEN = "port-taken", Patient.WORKERS
    NOT_READY = "not-ready", Patient.WORKERS
    WRAPPER = "wrapper", Patient.WORKERS
    OWN_LISTENER = "own-listener", Patient.WORKERS
    EXTRA_PORT = "extra-port", Patient.WORKERS, Severity.NOTE
    STOP_SIGNAL = "stop-signal", Patient.WORKERS
    WORKERS_KILLED = "workers-killed", Patient.WORKERS
    WORKERS_DIED = "workers-died", Patient.WORKERS
    LISTENER_SHRUNK = "listener-shrunk", Patient.WORKERS
    LISTENER_HARMED = "listener-harmed", Patient.WORKERS
    PROBE_FAILS = "probe-fails", Patient.WORKERS
    WARM_UP_FAILS = "warm-up-fails", Patient.WORKERS, Severity.NOTE
    ANSWERS_ERRORS = "answers-errors", Patient.WORKERS
    RELEASE_UNNAMED = "release-unnamed", Patient.WORKERS
    QUEUE_FULL = "queue-full", Patient.WORKERS
    OVERLAP = "overlap", Patient.WORKERS
    RANDOM_QUEUES = "random-queues", Patient.WORKERS, Severity.NOTE
    DIRECTORY_DELETED = "directory-deleted", Patient.WORKERS
    PROGRAM_REPLACED = "program-replaced", Patient.WORKERS, Severity.NOTE

    def __init__(self, label: str, patient: Patient, severity: Severity = Severity.PROBLEM) -> None:
        self.label, self.patient, self.severity = label, patient, severity

    def found(self, *, subject: str = "", what: str, why: str, fix: str) -> Finding:
        return Finding(check=self, subject=subject, what=what, why=why, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding; `subject` is the key, the path or the service that is concerned."""

    check: Check
    subject: str
    what: str
    why: str
    fix: str

"""Shapes of values that are more than a text, a number or a duration.

Addresses, commands, variables, limits, signals, surges and the like. settings.py says which key has
which shape.
"""

from __future__ import annotations

from dataclasses import replace

from sockmgr.config import address, placeholder, servers, shape
from sockmgr.config.document import Value
from sockmgr.config.shape import SIZE, TEXT, TEXTS, Shape, integer
from sockmgr.config.spec import SURGE_ALL, Accept, Address, OnStop, Policy, ReleaseName, Surge

PRESETS = ("auto", "none", *(one.name for one in servers.KNOWN.values() if not one.refused))
MAX_WORKERS = 10_000
_ENV_FILES = 16  # a table: the manager reads them while it does nothing else
_MEMORY = r"[1-9][0-9]{0,14}[MGT]"  # no program needs less: who wrote 512 meant 512M

# The numbers of x86, ARM and most other architectures: signal(7).
SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18,
    "WINCH": 28, "PWR": 30,
}  # fmt: skip
RESOURCES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
# The manager sets these for each worker; a value from `env` would be lost or would mislead.
RESERVED_ENV = (
    "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET",
    "SOCKMGR_SERVICE", "SOCKMGR_GENERATION", "SOCKMGR_SLOT", "SOCKMGR_WORKER",
)  # fmt: skip

# Neither absolute nor with `..`: it is looked for below the directory of each generation.
_FILE_BELOW = shape.text(
    "a path below the directory of the service, without ..", r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\x00]+"
)

# --- Readers -----------------------------------------------------------------------------------


def _address(value: Value) -> tuple[Address, dict[str, str]]:
    try:
        return address.parse(value.text())
    except ValueError as error:
        raise value.unusable(str(error)) from None


def _command(value: Value) -> tuple[str, ...]:
    allowed = 'an array: the program, then its arguments, for example ["uvicorn", "app:app"]'
    argv = value.texts(allowed)
    if not argv or not argv[0]:
        raise value.wrong(allowed)
    return argv


def _release(value: Value) -> ReleaseName:
    allowed = '["COMMAND", ...] or { file = "REVISION" }'
    if isinstance(value.raw, list):
        return ReleaseName(argv=_command(value))
    if not isinstance(value.raw, dict) or list(value.raw) != ["file"]:
        raise value.wrong(allowed)
    return ReleaseName(file=_FILE_BELOW.read(value.entries()["file"]))


def _listen(value: Value) -> tuple[str, ...]:
    names: list[str] = []
    for item in value.items("an array of names from [listen]"):
        name = item.text("the name of a listener", placeholder.NAME)
        if name in names:
            raise item.wrong("each listener once")
        names.append(name)
    return tuple(names)


def _env(value: Value) -> tuple[tuple[str, str], ...]:
    pairs = []
    value = replace(value, secret=True)
    for variable, entry in value.entries().items():
        if "=" in variable:  # the value was written into the name, and may be secret
            name = variable.partition("=")[0]
            raise value.refused(f"has a = in a name, behind {name}", do=f'write {name} = "VALUE"')
        if not variable or "\0" in variable:
            raise entry.refused("is not a name for a variable", do="allowed: a text without =")
        if variable in RESERVED_ENV:
            raise entry.refused("is set by sockmgr itself for each worker", do="remove it from env")
        pairs.append((variable, entry.text('a text: numbers need quotes too, PORT = "80"')))
    return tuple(pairs)


def _env_file(value: Value) -> tuple[str, ...]:
    allowed = f"a path, or an array of {_ENV_FILES} paths at most"
    names = [value] if isinstance(value.raw, str) else value.items(allowed)
    if len(names) > _ENV_FILES:
        raise value.wrong(allowed)
    return tuple(_PATH.read(name) for name in names)


def _limits(value: Value) -> tuple[tuple[str, int, int], ...]:
    limits = []
    for resource, entry in value.table(RESOURCES).items():
        if isinstance(entry.raw, list):
            both = [item.size() for item in entry.items("")]
            if len(both) != 2 or -1 < both[1] < (both[0] if both[0] >= 0 else 2**63):
                raise entry.wrong("[SOFT, HARD], the soft limit not above the hard one")
            limits.append((resource, both[0], both[1]))
        else:
            limits.append((resource, entry.size(), entry.size()))
    return tuple(sorted(limits))


def _memory(value: Value) -> int:
    value.text('a size in quotes of at least 1M, such as "512M"', _MEMORY)
    return value.size()


def _signal(value: Value) -> int:
    if isinstance(value.raw, str):
        signal = value.raw.removeprefix("SIG")
        if signal in SIGNALS:
            return SIGNALS[signal]
    elif isinstance(value.raw, int) and value.raw in SIGNALS.values():
        return value.integer(1, 64)
    raise value.wrong(f"one of {', '.join(SIGNALS)}; a drain_timeout of 0 kills at once")


def _surge(value: Value) -> Surge:
    allowed = '"all", a number of workers from 1, or "1%" to "100%"; for none, exclusive = true'
    if value.raw == "all":
        return SURGE_ALL
    if isinstance(value.raw, str):
        text = value.text(allowed, r"[0-9]{1,5}%?").rstrip("%")
        amount, percent = int(text), value.raw.endswith("%")
    else:
        amount, percent = value.integer(1, MAX_WORKERS, allowed), False
    if not 1 <= amount <= (100 if percent else MAX_WORKERS):
        raise value.wrong(allowed)
    return Surge(amount=amount, percent=percent)


def _workers(value: Value) -> int:
    bounds = f'a whole number from 1 to {MAX_WORKERS}, or "auto"'
    return 0 if value.raw == "auto" else value.integer(1, MAX_WORKERS, bounds)


# --- Shapes ------------------------------------------------------------------------------------

NAME = shape.text(
    "a name of 1 to 64 letters, digits, _, - and ., beginning with a letter or digit",
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
)
ACCOUNT = shape.text("the name or number of an account, in quotes", r"[^\x00:/\s]+")
_OCTAL_DIGITS = shape.text('octal digits in quotes, such as "0660" or "022"', r"0?[0-7]{1,4}")
OCTAL = Shape(lambda value: int(_OCTAL_DIGITS.read(value), 8), _OCTAL_DIGITS.schema)
ADDRESS = Shape(_address, {"type": "string", "pattern": f"^(?:{address.PATTERN})$"})
COMMAND = Shape(
    _command, {**TEXTS.schema, "minItems": 1, "prefixItems": [{**TEXT, "minLength": 1}]}
)
RELEASE = Shape(
    _release, {"anyOf": [COMMAND.schema, shape.closed({"file": _FILE_BELOW.schema}, ("file",))]}
)
LISTEN = Shape(
    _listen,
    {"type": "array", "items": {"type": "string", "pattern": f"^{placeholder.NAME}$"},
     "uniqueItems": True},
)  # fmt: skip
_NAMES = shape.array_of(NAME, "an array of names of services")
AFTER = Shape(lambda value: tuple(dict.fromkeys(_NAMES.read(value))), _NAMES.schema)
ENV = Shape(
    _env,
    {
        "type": "object",
        "propertyNames": {"pattern": r"^[^=\x00]+$", "not": {"enum": list(RESERVED_ENV)}},
        "additionalProperties": TEXT,
    },
)
_PATH = shape.text("a path; ? behind it if it may be missing", r"[^\x00?]+\??")
ENV_FILE = Shape(
    _env_file,
    {"anyOf": [_PATH.schema, {"type": "array", "items": _PATH.schema, "maxItems": _ENV_FILES}]},
)
_LIMIT = {
    "anyOf": [SIZE.schema, {"type": "array", "items": SIZE.schema, "minItems": 2, "maxItems": 2}]
}
LIMITS = Shape(_limits, shape.closed(dict.fromkeys(RESOURCES, _LIMIT)))
MEMORY = Shape(_memory, {"type": "string", "pattern": f"^{_MEMORY}$"})
SIGNAL = Shape(
    _signal, {"enum": [*SIGNALS, *(f"SIG{name}" for name in SIGNALS), *SIGNALS.values()]}
)
ACCEPT = shape.one_of(Accept, Accept)
POLICY = shape.one_of(Policy, Policy)
ON_STOP = shape.one_of(OnStop, OnStop)
PRESET = shape.one_of(PRESETS)
WORKERS = Shape(_workers, {"anyOf": [{"enum": ["auto"]}, integer(1, MAX_WORKERS).schema]})
SURGE = Shape(
    _surge,
    {
        "anyOf": [
            {"enum": ["all"]},
            integer(1, MAX_WORKERS).schema,
            {
                "type": "string",
                "pattern": r"^(?:(?:0{0,3}[0-9]{1,2}|0{0,2}100)%|0?[0-9]{1,4}|10000)$",
                "allOf": [{"pattern": "[1-9]"}],
            },
        ]
    },
)

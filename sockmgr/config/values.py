"""What one value of the config may be, where that is more than a text, a number or a duration.

Addresses, commands, variables, limits, signals, surges: each a Shape, a reader with the JSON Schema
of what it takes. Which key takes which is settings.py's.
"""

from __future__ import annotations

from dataclasses import replace

from sockmgr.config import address, placeholder, servers, shape
from sockmgr.config.document import Value
from sockmgr.config.shape import SIZE, TEXT, TEXTS, Shape, integer
from sockmgr.config.spec import SURGE_ALL, Accept, Address, Policy, Surge

PRESETS = ("auto", "none", *servers.KNOWN)
MAX_WORKERS = 10_000

# Numbers of Linux on every architecture CPython is packaged for but MIPS, Alpha and PA-RISC.
SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18,
    "WINCH": 28, "PWR": 30,
}  # fmt: skip
RESOURCES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
# Set for each worker by the manager; a value from `env` would be lost or would mislead.
RESERVED_ENV = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET")

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


def _octal(value: Value) -> int:
    return int(value.text('octal digits in quotes, such as "0660" or "022"', _OCTAL_PATTERN), 8)


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
        if "=" in variable:  # whose value was written into the name
            name = variable.partition("=")[0]
            raise value.refused(f"has a = in a name, behind {name}", do=f'write {name} = "VALUE"')
        if not variable or "\0" in variable:
            raise entry.refused("is not a name for a variable", do="allowed: a text without =")
        if variable in RESERVED_ENV:
            raise entry.refused("is set by sockmgr itself for each worker", do="remove it from env")
        pairs.append((variable, entry.text('a text: numbers need quotes too, PORT = "80"')))
    return tuple(pairs)


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


def _signal(value: Value) -> int:
    if isinstance(value.raw, str):
        signal = value.raw.removeprefix("SIG")
        if signal in SIGNALS:
            return SIGNALS[signal]
    elif isinstance(value.raw, int) and value.raw in SIGNALS.values():
        return value.integer(1, 64)
    raise value.wrong(f"one of {', '.join(SIGNALS)}; a drain_timeout of 0 kills at once")


def _accept(value: Value) -> Accept:
    if value.raw not in list(Accept):
        raise value.wrong(", ".join(f'"{way}"' for way in Accept))
    return Accept(value.text())


def _policy(value: Value) -> Policy:
    if value.raw not in list(Policy):
        raise value.wrong(", ".join(f'"{way}"' for way in Policy))
    return Policy(value.text())


def _preset(value: Value) -> str:
    if value.raw not in PRESETS:
        raise value.wrong(", ".join(f'"{preset}"' for preset in PRESETS))
    return value.text()


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


# --- Shapes ------------------------------------------------------------------------------------

_OCTAL_PATTERN = r"0?[0-7]{1,4}"
NAME = shape.text(
    "a name of 1 to 64 letters, digits, _, - and ., beginning with a letter or digit",
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
)
ACCOUNT = shape.text("the name or number of an account, in quotes", r"[^\x00:/\s]+")
OCTAL = Shape(_octal, {"type": "string", "pattern": f"^{_OCTAL_PATTERN}$"})
ADDRESS = Shape(_address, {"type": "string", "pattern": f"^(?:{address.PATTERN})$"})
COMMAND = Shape(
    _command,
    {**TEXTS.schema, "minItems": 1, "prefixItems": [{**TEXT, "minLength": 1}]},
)
LISTEN = Shape(
    _listen,
    {"type": "array", "items": {"type": "string", "pattern": f"^{placeholder.NAME}$"},
     "uniqueItems": True},
)  # fmt: skip
ENV = Shape(
    _env,
    {
        "type": "object",
        "propertyNames": {"pattern": r"^[^=\x00]+$", "not": {"enum": list(RESERVED_ENV)}},
        "additionalProperties": TEXT,
    },
)
_LIMIT = {
    "anyOf": [
        SIZE.schema,
        {"type": "array", "items": SIZE.schema, "minItems": 2, "maxItems": 2},
    ]
}
LIMITS = Shape(
    _limits,
    {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(RESOURCES, _LIMIT),
    },
)
SIGNAL = Shape(
    _signal, {"enum": [*SIGNALS, *(f"SIG{name}" for name in SIGNALS), *SIGNALS.values()]}
)
ACCEPT = Shape(_accept, {"enum": [str(way) for way in Accept]})
POLICY = Shape(_policy, {"enum": [str(way) for way in Policy]})
PRESET = Shape(_preset, {"enum": list(PRESETS)})
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

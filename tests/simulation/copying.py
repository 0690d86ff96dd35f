"""A world, copied as it is, so that two futures of it can be played.

Each schedule has a copy, which must not take longer than its steps. So how the objects of a class
are copied is written as code when the first of them is met, as dataclasses does for their methods.
"""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import types
from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import msgspec

from sockmgr.fleet.lease_book import Kind
from sockmgr.manager.service.lease_map import LeaseModes
from tests.simulation.kernel import Holdings, Report
from tests.simulation.manager import State
from tests.simulation.shell import Nothing
from tests.simulation.world import World

Copies = dict[int, Any]  # of what was met already, by its id()
Way = Callable[[Any, Copies], Any]

# What never changes, nor anything in it; so are types, enumerations, and frozen structs but for
# LeaseModes, which have listeners.
VALUES = (
    int, float, str, bytes, types.NoneType, types.ModuleType, types.MethodDescriptorType,
    types.WrapperDescriptorType, msgspec.Raw, Holdings, Kind, Report, State, Nothing,
)  # fmt: skip
HEAP = 1 << 9  # the flag of types that are made when a program runs: Py_TPFLAGS_HEAPTYPE


def copied(world: World) -> World:
    """Return a copy that has nothing in common with the world but what never changes."""
    made: World = _copied(world, {})
    return made


def is_shared(kind: type) -> bool:
    """Tell whether an object of this type is its own copy."""
    is_frozen = issubclass(kind, msgspec.Struct) and kind.__struct_config__.frozen
    return (is_frozen and kind is not LeaseModes) or issubclass(kind, (*VALUES, type, Enum))


class _Ways(dict[type, Way | None]):
    """How objects of each type are copied; None: not at all."""

    def __missing__(self, kind: type) -> Way | None:
        way = self[kind] = None if is_shared(kind) else _way(kind)
        return way


WAYS = _Ways()


def _copied(found: Any, copies: Copies) -> Any:
    return found if (way := WAYS[type(found)]) is None else way(found, copies)


def _each(found: Iterable[Any], copies: Copies) -> list[Any]:
    return [x if (way := WAYS[type(x)]) is None else way(x, copies) for x in found]


def _way(kind: type) -> Way:
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _tuple
    return KNOWN.get(kind) or _written(kind)


# --- What is built in ----------------------------------------------------------------------------


def _list(found: list[Any], copies: Copies) -> list[Any]:
    if (made := copies.get(id(found))) is None:
        made = copies[id(found)] = []
        if found:
            made += [x if (way := WAYS[type(x)]) is None else way(x, copies) for x in found]
    return made


def _dict(found: dict[Any, Any], copies: Copies) -> dict[Any, Any]:
    if (made := copies.get(id(found))) is None:
        made = copies[id(found)] = {} if type(found) is dict else dict.__new__(type(found))
        for key, value in found.items():
            to = key if (way := WAYS[type(key)]) is None else way(key, copies)
            made[to] = value if (way := WAYS[type(value)]) is None else way(value, copies)
    return made


def _set(found: set[Any], copies: Copies) -> set[Any]:
    if (made := copies.get(id(found))) is None:
        made = copies[id(found)] = set()
        if found:
            made.update(_each(found, copies))
    return made


def _frozenset(found: frozenset[Any], copies: Copies) -> frozenset[Any]:
    if (made := copies.get(id(found))) is None:
        is_same = all(WAYS[type(each)] is None for each in found)
        made = copies[id(found)] = found if is_same else frozenset(_each(found, copies))
    return made


def _tuple(found: tuple[Any, ...], copies: Copies) -> tuple[Any, ...]:
    if (made := copies.get(id(found))) is None:
        parts = _each(found, copies)
        # One of its parts may have it, and have copied it by now.
        if (made := copies.get(id(found))) is None:
            is_same = all(map(operator.is_, found, parts))
            made = copies[id(found)] = found if is_same else tuple.__new__(type(found), parts)
    return made


def _deque(found: deque[Any], copies: Copies) -> deque[Any]:
    if (made := copies.get(id(found))) is None:
        made = copies[id(found)] = deque(maxlen=found.maxlen)
        made += _each(found, copies)
    return made


def _method(found: types.MethodType, copies: Copies) -> Any:
    if (made := copies.get(id(found))) is None:
        it = _copied(found.__self__, copies)
        made = copies[id(found)] = types.MethodType(found.__func__, it)
    return made


def _function(found: types.FunctionType, copies: Copies) -> Any:
    del copies
    if found.__closure__:
        raise TypeError(f"{found} knows something of the world, which its copy would know, too")
    return found


def _builtin(found: types.BuiltinMethodType, copies: Copies) -> Any:
    return getattr(_copied(found.__self__, copies), found.__name__)


def _partial(found: functools.partial[Any], copies: Copies) -> Any:
    if (made := copies.get(id(found))) is None:
        args, keywords = _each(found.args, copies), _dict(found.keywords, copies)
        made = functools.partial(_copied(found.func, copies), *args, **keywords)
        made = copies.setdefault(id(found), made)  # what it calls may have it, and copy it first
    return made


def _modes(found: LeaseModes, copies: Copies) -> LeaseModes:
    if (made := copies.get(id(found))) is None:
        about = _each([getattr(found, name) for name in found.__struct_fields__], copies)
        made = copies[id(found)] = LeaseModes(*about)
    return made


def _count(found: itertools.count[int], copies: Copies) -> Any:
    if (made := copies.get(id(found))) is None:
        made = copies[id(found)] = copy.copy(found)
    return made


KNOWN: dict[type, Way] = {
    list: _list, dict: _dict, Counter: _dict, set: _set, frozenset: _frozenset, tuple: _tuple,
    deque: _deque, types.MethodType: _method, types.FunctionType: _function,
    types.BuiltinMethodType: _builtin, functools.partial: _partial, itertools.count: _count,
    LeaseModes: _modes,
}  # fmt: skip


# --- Objects of our classes ----------------------------------------------------------------------


def _written(kind: type) -> Way:
    """Write how to copy an object of a class: attribute by attribute."""
    if unknown := [each for each in kind.__mro__[:-1] if not each.__flags__ & HEAP]:
        raise TypeError(f"nobody has said how a {unknown[0]} is copied, which {kind} is")
    slots = [name for each in kind.__mro__ for name in _slots(each)]
    if not kind.__dictoffset__:
        return _code(kind, slots, ())
    ways: dict[tuple[str, ...], Way] = {}  # by what an object has: most of a class have the same

    def way(found: Any, copies: Copies) -> Any:
        if (made := copies.get(id(found))) is not None:
            return made
        if (known := ways.get(names := tuple(found.__dict__))) is None:
            known = ways[names] = _code(kind, slots, names)
        return known(found, copies)

    return way


def _slots(kind: type) -> tuple[str, ...]:
    ours = vars(kind).get("__slots__", ())
    return tuple(each for each in ours if each not in ("__dict__", "__weakref__"))


def _code(kind: type, slots: Iterable[str], names: Iterable[str]) -> Way:
    is_frozen = getattr(kind, "__setattr__", None) is not object.__setattr__
    put = "put(made, {0!r}, {1})" if is_frozen else "made.{0} = {1}"
    copy_of = "x if (way := ways[type(x := {})]) is None else way(x, copies)"
    parts = [(name, copy_of.format(f"found.{name}")) for name in slots]
    parts += [(name, copy_of.format(f"has[{name!r}]")) for name in names]
    lines = [
        "def way(found, copies):",
        " if (made := copies.get(id(found))) is not None: return made",
        " made = copies[id(found)] = new(kind)",
        " has = found.__dict__" if names else "",
        *(" " + put.format(*each) for each in parts),
        " return made",
    ]
    said = {"ways": WAYS, "new": object.__new__, "kind": kind, "put": object.__setattr__}
    exec("\n".join(lines), said)
    way: Way = said["way"]
    return way

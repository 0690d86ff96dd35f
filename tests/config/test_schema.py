"""The JSON Schema and the parser agree on what a config may be."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.config import (
    app_keys,
    config,
    manager_keys,
    probe_keys,
    settings,
    shape,
    values,
)
from sockmgr.config.document import Source, Value
from sockmgr.config.schema import schema
from sockmgr.errors import ConfigError
from tests.config.texts import FULL, MISTAKES
from tests.helpers.pages import PAGES, ROOT, whole_configs

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra: test)")

TABLES: dict[str, shape.Keys] = {
    "": manager_keys.TOP, "listen.*": settings.LISTENER, "service.*": settings.SERVICE,
    "service.*.http": app_keys.HTTP,
    "service.*.hooks": settings.HOOKS, "service.*.hooks.before": settings.HOOK,
    "service.*.ready": settings.READY, "service.*.healthy": probe_keys.HEALTHY,
    "service.*.rollout": settings.ROLLOUT, "service.*.resources": settings.RESOURCES,
    "rollout": manager_keys.ROLLOUTS,
    "control": manager_keys.CONTROL, "logs": manager_keys.LOGS, "dev": manager_keys.DEV,
}  # fmt: skip
KEYS = [(table, name) for table, keys in TABLES.items() for name in keys]

# Mistakes that lie between values, or in a number that a pattern cannot know.
BEYOND = {
    "two directories of metrics",
    "listener not known", "placeholder not known", "placeholder of another", "one address twice",
    "listener of two services", "listener of nobody", "listeners not said", "duration nan",
    "long unix path", "limit upside down", "limit unlimited above", "option not known",
    "option twice", "interface beside command", "http beside command", "preload beside command",
    "max_requests beside command",
    "policy alone", "limit alone", "after nobody", "after itself", "together with exclusive",
    "canary's share falls", "canary beside exclusive", "canary on a unix socket",
    "canary of a large share for few workers",
    "header", "header of ours", "expect beside tcp", "probe of another", "healthy whom",
    "split beside raw", "accepting alone", "methods of nobody", "readers are the group",
    "mode against the group", "mode against the readers",
}  # fmt: skip
# Values that only their reader refuses: too much for its type, or one limit above the other.
TOO_MUCH = ("9999999d", "999999999999999T", [2, 1], ["unlimited", 1], 1.0)

DURATIONS = ["1m30s", "500ms", "0s", "0.0s", "1.5h", "1 s", "s", "1", "1y", "-1s", "9999999d"]
SIZES = ["512M", "1", "0", "2GB", "1.5G", "unlimited", "999999999999999T", "m", "-1"]
NUMBERS = [
    0,
    1,
    0.25,
    1.0,
    -1,
    3,
    15,
    200,
    4096,
    10_000,
    10_001,
    10**9,
    2**31,
    2**63 - 1,
    2**63,
    10**30,
]
WORDS = ["", "all", "25%", "0%", "100%", "101%", "007%", "00000", "10000", "10001", "auto", "TERM"]
WORDS += ["SIGTERM", "SIGSIGTERM", "KILL", "none", "apache", "shared", "dispatch", "accepting"]
WORDS += ["least-connections", "refuse", "drop", "/run/a", "/", "/run/a/", "run/a"]
WORDS += ["/a?b=c", "2xx", "6xx", "raw", "json"]
WORDS += ["notify", "http", "0660", "660", "00660", "0888", "a b", "a/b", "a\0b", "web", "-", "."]
WORDS += ["asgi", "info", "h11", "shop.main:app", "shop:create_app()", "shop:", "a:b()()", "a:b."]
ADDRESSES = [
    "tcp://127.0.0.1:0", "tcp://h:65535", "tcp://h:65536", "tcp://h:00080", "tcp://h:99999",
    "tcp://[::1]:80", "tcp://[fe80::1%eth0]:80", "tcp://[::zz]:1", "tcp://:80", "tcp://h", "udp://h:53",
    "http://h:1", "unix:///run/s", "unix:///run/s?mode=0600&user=a", "unix:///run/s?mode",
    "unix:///run/", "unix:///", "unix://run/s", "unix://%2Frun/s", "unix:/run/s", "unix:///run/s?",
    "unix-abstract:a", "unix-abstract:", "unix-abstract:/", "unix-abstract://a", "fd://3",
    "unix-abstract:" + "x" * 107, "unix-abstract:" + "x" * 108, "fd://x", "fd://12345678",
    "vsock://2:80", "tcp",
]  # fmt: skip
LISTS: list[Any] = [[], [""], ["a"], ["a", ""], ["a", "a"], [1], ["a\0"], [1, 2], [2, 1]]
LISTS += [["1K", "unlimited"], ["unlimited", 1], [1, 2, 3], [[]], ["a b", "{http}"], [True]]
OBJECTS: list[Any] = [
    {}, {"A": "1"}, {"A": 1}, {"": "1"}, {"A=": "1"}, {"LISTEN_FDS": "1"}, {"PATH": "a\0"},
    {"delay": "2s"}, {"delay": "x"}, {"delay": 1, "exec": ["a"]}, {"exec": ["a", ""]}, {"exec": []},
    {"exec": ["a"], "accepting": False}, {"exec": ["a"], "accepting": 1},
    {"exec": [""]}, {"http": "/"}, {"nofile": 1}, {"nofiles": 1}, {"core": [0, "unlimited"]},
    {"http": "/", "expect": "2xx"}, {"http": "/", "expect": 20}, {"tcp": True}, {"http": "x"},
    {"tcp": True, "every": "1s"}, {"http": "/", "tcp": True}, {"http": "/", "expect": []},
    {"core": [2, 1]}, {"core": [1]}, {"as": "2G", "cpu": "x"}, {"surge": 1}, {"surge": "0"},
    {"surge": "all", "exclusive": True}, {"canary": {}}, {"share": "10%"}, {"share": "0%"},
    {"share": ["5%", "25%"], "for": "1m", "hold": True}, {"share": "10%", "check": []},
    {"probation": "1s", "zzz": 1},
    {"before": ["a"]}, {"run": ["a"]}, {"run": [], "timeout": 1},
    {"run": ["a"], "timeout": "5m"}, {"run": ["a"], "timeout": 0}, {"timeout": 1},
    {"committed": {"run": ["a"], "timeout": "x"}}, {"worker_ended": "a"},
]  # fmt: skip
OTHERS: list[Any] = [True, False, date(2026, 11, 23)]
POOL: list[Any] = [
    *DURATIONS, *SIZES, *NUMBERS, *WORDS, *ADDRESSES, *LISTS, *OBJECTS, *OTHERS,
]  # fmt: skip


def accepts(part: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Return the judgement of a validator by this schema."""
    kind = jsonschema.Draft202012Validator
    kind.check_schema(part)
    found: Callable[[Any], bool] = kind(part).is_valid
    return found


is_valid = accepts(schema())


def is_read(key: shape.Key, raw: object) -> bool:
    try:
        key.read(Value(Source("pool"), ("key",), raw))
    except ConfigError:
        return False
    return True


def within(table: str) -> dict[str, Any]:
    """Return the part of the whole schema for one table of keys."""
    part: Any = schema()
    for step in filter(None, table.split(".")):
        part = part["additionalProperties"] if step == "*" else part["properties"][step]
        options = part.get("anyOf", ())
        part = next((option for option in options if "properties" in option), part)
    found: dict[str, Any] = part
    return found


def test_every_key_of_the_parser_is_in_the_schema_and_no_other() -> None:
    for table, keys in TABLES.items():
        more = manager_keys.NAMED if not table else {}
        assert set(within(table)["properties"]) == {*keys, *more}
        assert within(table)["additionalProperties"] is False
    limits = within("service.*.limits")
    assert set(limits["properties"]) == set(values.RESOURCES)


def test_every_table_of_keys_is_tested_here() -> None:
    named = {**vars(settings), **vars(manager_keys)}
    del named["LIMITS"]  # these are some keys of SERVICE
    kinds = [value for value in named.values() if isinstance(value, dict) and value]
    found = [keys for keys in kinds if isinstance(next(iter(keys.values())), shape.Key)]
    assert len(found) > 3
    assert all(any(keys is known for known in TABLES.values()) for keys in found)


def test_every_key_is_described_for_the_editor() -> None:
    assert all(re.search(r"[a-z].*\.$", TABLES[table][name].about) for table, name in KEYS)
    assert all(schema()["properties"][table]["description"] for table in manager_keys.NAMED)


@pytest.mark.parametrize(("table", "name"), KEYS)
def test_a_key_takes_in_the_schema_what_its_reader_takes(table: str, name: str) -> None:
    key = TABLES[table][name]
    fits = accepts(within(table)["properties"][name])
    assert key.default is None or fits(key.default)
    wrong = [raw for raw in POOL if is_read(key, raw) != fits(raw)]
    # Only in this direction: the schema refuses nothing that the reader takes.
    assert [raw for raw in wrong if is_read(key, raw) or not is_beyond(raw)] == []
    assert any(is_read(key, raw) for raw in POOL)
    assert not all(fits(raw) for raw in POOL)


def is_beyond(raw: object) -> bool:
    """Tell whether a value is refused for what no schema says, in itself or in what it holds."""
    if isinstance(raw, dict):
        return any(map(is_beyond, raw.values()))
    return any(raw == one and type(raw) is type(one) for one in TOO_MUCH)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_schema_refuses_a_mistake_that_a_schema_can_see(name: str) -> None:
    right, wrong, *_ = MISTAKES[name]
    try:
        document = tomli.loads(FULL.replace(right, wrong, 1))
    except tomli.TOMLDecodeError:
        return  # not even TOML
    assert is_valid(document) is (name in BEYOND)


@pytest.mark.parametrize("scheme", ["tcp://h:1", "fd://3", "unix-abstract:a"])
@pytest.mark.parametrize("key", settings.UNIX_ONLY)
def test_the_keys_of_unix_paths_are_refused_elsewhere(scheme: str, key: str) -> None:
    fits = accepts(within("listen.*"))
    assert not fits({"address": scheme, key: "0600"})
    assert fits({"address": "unix:///run/s", key: "0600"})


def _configs() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "examples").rglob("sockmgr.toml")):
        yield str(path.relative_to(ROOT)), path.read_text()
    for page in PAGES:
        for number, text in enumerate(whole_configs(page)):
            yield f"{page.relative_to(ROOT)}[{number}]", text


CONFIGS = dict(_configs())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_example_and_every_config_in_the_docs_is_valid(name: str) -> None:
    jsonschema.validate(tomli.loads(CONFIGS[name]), schema())


def test_there_are_examples_and_configs_in_the_docs() -> None:
    folders = {Path(name).parts[0] for name in CONFIGS}
    assert {"examples", "docs", "README.md[0]"} <= folders
    assert is_valid(tomli.loads(FULL))


@given(st.data())
def test_whatever_edit_of_a_config_is_still_read_is_valid(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    end = data.draw(st.integers(at, min(len(FULL), at + 20)))
    lines = st.sampled_from(FULL.splitlines())
    put = data.draw(st.text(max_size=5) | st.sampled_from('"[]{}=\n.0') | lines)
    text = FULL[:at] + put + FULL[end:]
    with contextlib.suppress(ConfigError):
        config.parse(text.encode(errors="replace"), file="edited.toml")
        assert is_valid(tomli.loads(text.encode(errors="replace").decode()))

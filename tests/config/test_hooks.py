"""What [service.NAME.hooks] may be."""

from __future__ import annotations

import pytest

from sockmgr.config import plan
from sockmgr.config.config import Config, parse
from sockmgr.config.hooks import TIMEOUT, Hook, Hooks, Moment
from sockmgr.errors import ConfigError

SMALL = '[listen]\nhttp = "tcp://127.0.0.1:80"\n[service.web]\ncommand = ["serve"]\n'


def read(hooks: str) -> Config:
    return parse(f"{SMALL}[service.web.hooks]\n{hooks}\n".encode(), file="shop.toml")


def test_a_hook_is_an_array_or_a_table_with_a_timeout() -> None:
    (web,) = read(
        'before = ["./manage.py", "migrate"]\nready = { run = ["a"], timeout = "10m" }'
    ).services
    before = Hook(argv=("./manage.py", "migrate"), timeout=TIMEOUT)
    assert web.hooks == Hooks(before=before, ready=Hook(argv=("a",), timeout=600))
    assert web.hooks.at(Moment.BEFORE) is web.hooks.before
    assert web.hooks.at(Moment.WORKER_ENDED) is None


MISTAKES = {
    'before = "./manage.py migrate"': r"before = \"./manage.py migrate\" .*",
    "before = []": r"before = \[\] .*",
    'before = [["a"], ["b"]]': r"before\[0\] = \[\"a\"\] .*",
    "before = { timeout = 1 }": r"before = .*",
    'before = { run = ["a"], timeout = 0 }': r"before\.timeout = 0 .*",
    'before = { run = ["a"], retries = 3 }': r"before\.retries is not a known key",
    'befor = ["a"]': r"befor is not a known key",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named_with_its_place(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"shop\.toml:6:\d+: service\.web\.hooks\." + MISTAKES[text]
    ):
        read(text)


def test_a_hook_that_changes_is_shown_as_it_is_typed() -> None:
    old, new = read('before = ["a"]'), read('before = ["b", "c d"]')
    assert [change.text for change in plan.diff(old, new)] == [
        "~ service.web.hooks.before a → b 'c d': needs no new workers"
    ]

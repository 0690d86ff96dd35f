"""The keys of `resources`: what they come to, and what is refused."""

from __future__ import annotations

import pytest

from sockmgr.config.config import parse
from sockmgr.config.resources import Resources
from sockmgr.errors import ConfigError


def read(lines: str) -> Resources:
    text = f'[service.web]\ncommand = ["x"]\n[service.web.resources]\n{lines}\n'
    return parse(text.encode(), file="shop.toml").services[0].resources


def test_sizes_and_numbers_become_what_the_kernel_is_told() -> None:
    found = read('memory_high = "400M"\nmemory_max = "512M"\ncpu_weight = 50\npids_max = 100')
    assert [(write.file, write.value) for write in found.writes()] == [
        ("memory.high", str(400 << 20)), ("memory.max", str(512 << 20)), ("cpu.weight", "50"),
        ("pids.max", "100"), ("memory.oom.group", "1"),
    ]  # fmt: skip
    assert {write.controller for write in found.writes()} == {"memory", "cpu", "pids"}


def test_nothing_given_is_nothing_written() -> None:
    assert read("").writes() == ()
    assert [write.file for write in read('memory_high = "1M"').writes()] == ["memory.high"]


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ("memory_max = 512", "4:14", "memory_max = 512"),
        ('memory_max = "0"', "4:14", 'memory_max = "0"'),
        ('memory_max = "-1M"', "4:14", 'memory_max = "-1M"'),
        ("cpu_weight = 0", "4:14", "from 1 to 10000"),
        ("cpu_weight = 10001", "4:14", "from 1 to 10000"),
        ('cpu_weight = "50"', "4:14", 'cpu_weight = "50"'),
        ("pids_max = 0", "4:12", "pids_max = 0"),
        ("pids_max = true", "4:12", "pids_max = true"),
        ('memory_swap = "1G"', "4:1", "memory_swap"),
        ('memory_high = "2G"\nmemory_max = "1G"', "4:1", "is above memory_max"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(lines: str, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(lines)
    assert f"shop.toml:{where}" in str(refused.value.what)
    assert what in f"{refused.value.what} {refused.value.do}"


def test_a_number_instead_of_the_table_is_refused() -> None:
    text = '[service.web]\ncommand = ["x"]\nresources = 5\n'
    with pytest.raises(ConfigError, match=r"resources"):
        parse(text.encode(), file="shop.toml")

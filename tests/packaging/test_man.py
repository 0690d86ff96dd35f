"""The manual pages tell of every verb, option and key, in roff that nothing complains about."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from sockmgr.cli import cli
from sockmgr.config.config import parse
from sockmgr.config.schema import schema
from tests.helpers.pages import ROOT

_SPEC = importlib.util.spec_from_file_location("make_man", ROOT / "docs" / "make_man.py")
assert _SPEC
assert _SPEC.loader
make_man = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_man)

PAGES: dict[str, str] = make_man.pages()
NAMES = cli.list_commands(click.Context(cli))


def plain(page: str) -> str:
    """Return a page without escapes."""
    return PAGES[page].replace("\\-", "-").replace("\\(dq", '"')


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_a_verb_has_all_of_its_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command
    page = plain(f"sockmgr-{name}.1")
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    options = [option for each in shown for option in each.opts if option[0] == "-"]
    for option in [*options, "-h", "--help"]:
        assert re.search(rf"^\.B (?:.*, )?{option}(?:[ ,]|$)", page, re.MULTILINE), option


def test_the_page_of_the_program_has_all_verbs() -> None:
    found = re.findall(r"^\.BR sockmgr-(\S+) \(1\)", plain("sockmgr.1"), re.MULTILINE)
    assert sorted(found) == sorted(NAMES)


def keys(part: dict[str, Any]) -> Iterator[str]:
    """Yield each key that a schema describes."""
    for name, each in part.get("properties", {}).items():
        if isinstance(each, dict) and "description" in each:
            yield name
            yield from keys(each)
    for each in (part.get("additionalProperties"), *part.get("anyOf", ())):
        if isinstance(each, dict):
            yield from keys(each)


def test_the_page_of_the_config_has_each_key_as_often_as_there_are_tables_that_have_it() -> None:
    found = re.findall(r'^\.BR (\S+) " = ', plain("sockmgr.toml.5"), re.MULTILINE)
    assert sorted(found) == sorted(keys(schema()))


def test_the_example_is_a_config() -> None:
    assert parse(make_man.EXAMPLE.encode(), file="/etc/sockmgr/shop.toml").name == "shop"


@pytest.mark.parametrize(
    "checker", [("mandoc", "-T", "lint", "-W", "style"), ("groff", "-man", "-ww", "-Tutf8", "-z")]
)
def test_no_formatter_has_a_complaint(checker: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which(checker[0]) is None:
        pytest.skip(f"there is no {checker[0]}")
    make_man.main(tmp_path)
    paths = sorted(map(str, tmp_path.glob("man*/*")))
    assert len(paths) == len(NAMES) + 2
    done = subprocess.run([*checker, *paths], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""

"""The docs say what is true of the code: keys, defaults, examples, links."""

from __future__ import annotations

import dataclasses
import importlib
import re
import runpy
import signal
from pathlib import Path

import click
import msgspec
import pytest
import tomli
from msgspec.structs import fields

from sockmgr.cli import cli
from sockmgr.config import (
    app_keys,
    canary_keys,
    config,
    manager_keys,
    probe_keys,
    servers,
    settings,
    values,
)
from sockmgr.config.shape import Keys
from sockmgr.config.spec import Listen, Rollout
from tests.helpers.pages import PAGES, ROOT, TOML, whole_configs

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(r"`((?:tests|contrib|examples|docs|sockmgr|\.ci)/[\w./-]+)`")
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]*) \|", re.MULTILINE)

APP_TABLE = '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\napp = "shop:app"\n'
SERVICE_TABLE = '[service.web]\ncommand = ["server"]\n'


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """Return the names that headings get: lower case, no punctuation, dashes for blanks."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def _section(heading: str) -> str:
    """Return the text under `heading` of the page on configuration."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    _, _, rest = text.partition(f"\n## {heading}\n")
    assert rest, f"docs/configuration.md has no section {heading}"
    return rest.partition("\n## ")[0]


def _keys(heading: str) -> dict[str, str]:
    """Return the first two columns of the tables of keys in a section: key -> default."""
    return dict(_ROW.findall(_section(heading)))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{_name(page)}: {link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{_name(page)}: {link} names no heading"


def test_what_the_reference_of_the_site_is_about_is_there() -> None:
    """Sphinx would say so, too, but late: `make docs`."""
    reference = runpy.run_path(str(ROOT / "docs" / "make_site.py"))["REFERENCE"]
    told = re.findall(r"automodule:: (\S+)\n   :members:(.*)$", reference, re.MULTILINE)
    assert len(told) > 5
    for module, names in told:
        found = importlib.import_module(module)
        missing = {name.strip() for name in names.split(",") if name.strip()} - {*vars(found)}
        assert not missing, f"docs/make_site.py: {module} has no {missing}"


def test_every_page_is_in_a_group_of_the_front_page() -> None:
    """The table of contents of the site is made of them."""
    front = ROOT / "docs" / "index.md"
    _, _, groups = front.read_text().partition("\n## ")
    listed = {(front.parent / link).resolve() for link in _LINK.findall(groups)}
    assert {*PAGES} - {front} == listed


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_file_of_the_repository_that_is_named_is_there(page: Path) -> None:
    for path in _PATH.findall(page.read_text()):
        assert (ROOT / path).exists(), f"{_name(page)}: there is no {path}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_whole_config_in_the_docs_is_accepted(page: Path) -> None:
    for text in whole_configs(page):
        config.parse(text.encode(), file=_name(page))


def test_the_page_on_configuration_holds_a_whole_config() -> None:
    page = ROOT / "docs" / "configuration.md"
    assert any("[service." in text for text in TOML.findall(page.read_text()))


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("Top level", {*manager_keys.TOP, *manager_keys.NAMED}),
        ("[listen]", set(settings.LISTENER)),
        ("[service.NAME]", set(settings.SERVICE)),
        ("Probes", set(probe_keys.HEALTHY)),
        ("[service.NAME.http]", set(app_keys.HTTP)),
        ("[service.NAME.rollout]", set(settings.ROLLOUT)),
        ("Canary", set(canary_keys.KEYS)),
        ("[service.NAME.hooks]", set(settings.HOOKS)),
        ("[rollout]", set(manager_keys.ROLLOUTS)),
        ("[control]", set(manager_keys.CONTROL)),
        ("[logs]", set(manager_keys.LOGS)),
        ("[dev]", set(manager_keys.DEV)),
    ],
)
def test_the_keys_in_the_docs_are_the_keys_of_the_code(heading: str, keys: set[str]) -> None:
    assert set(_keys(heading)) == keys


def test_the_keys_of_a_table_are_the_fields_of_what_is_made_of_it() -> None:
    made: dict[type[msgspec.Struct], Keys] = {
        Listen: settings.LISTENER, config.Dev: manager_keys.DEV, Rollout: settings.ROLLOUT,
    }  # fmt: skip
    for kind, keys in made.items():
        assert {field.name for field in fields(kind)} - {"name"} == set(keys)
    assert {field.name for field in dataclasses.fields(app_keys.Http)} == set(app_keys.HTTP)


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("Top level", manager_keys.TOP),
        ("[listen]", settings.LISTENER),
        ("[service.NAME]", settings.SERVICE),
        ("Probes", probe_keys.HEALTHY),
        ("[service.NAME.http]", app_keys.HTTP),
        ("[service.NAME.rollout]", settings.ROLLOUT),
        ("Canary", canary_keys.KEYS),
        ("[rollout]", manager_keys.ROLLOUTS),
        ("[dev]", manager_keys.DEV),
    ],
)
def test_the_defaults_in_the_docs_are_those_that_editors_show(heading: str, keys: Keys) -> None:
    for name, cell in _keys(heading).items():
        literal = re.match(r"`([^`]+)`", cell)
        told = tomli.loads(f"key = {literal[1]}")["key"] if literal else None
        if name in keys:
            assert keys[name].default == told, name


@pytest.mark.parametrize(
    ("heading", "before"),
    [
        ("Top level", ""),
        ("[listen]", '[listen.http]\naddress = "tcp://127.0.0.1:0"\n'),
        ("[service.NAME]", SERVICE_TABLE),
        ("[service.NAME.http]", f"{APP_TABLE}[service.web.http]\n"),
        ("[service.NAME.rollout]", f"{SERVICE_TABLE}[service.web.rollout]\n"),
        ("[rollout]", f"{SERVICE_TABLE}[rollout]\n"),
        ("[dev]", f"{SERVICE_TABLE}[dev]\n"),
    ],
)
def test_a_default_in_the_docs_changes_nothing_when_it_is_written(
    heading: str, before: str
) -> None:
    after = "" if "[service.web]" in before else SERVICE_TABLE
    without = config.parse((before + after).encode(), file="without")
    for key, cell in _keys(heading).items():
        if literal := re.fullmatch(r"`([^`]+)`", cell.strip()):
            text = f"{before}{key} = {literal[1]}\n{after}"
            assert config.parse(text.encode(), file=key) == without, f"{key} = {literal[1]}"


def test_every_known_word_of_the_config_is_in_the_docs() -> None:
    text = _section("[service.NAME]")
    for word in (*values.PRESETS, *values.RESOURCES, *values.SIGNALS, *values.RESERVED_ENV):
        assert re.search(rf"\b{word}\b", text), f"{word} is not in the docs"


def test_every_verb_is_in_the_table_of_commands() -> None:
    table = (ROOT / "docs" / "control.md").read_text()
    for verb in cli.list_commands(click.Context(cli)):
        assert f"\n| `sockmgr {verb}" in table, verb


@pytest.mark.parametrize(
    ("script", "made", "file"),
    [
        ("make_readme.py", "readme", "README.md"),
        ("make_reload.py", "picture", "docs/reload.svg"),
    ],
)
def test_what_a_script_writes_is_there_as_it_writes_it(script: str, made: str, file: str) -> None:
    now = runpy.run_path(str(ROOT / "docs" / script))[made]()
    assert (ROOT / file).read_text(encoding="utf-8") == now, f"run python docs/{script}"


def test_the_table_of_presets_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "servers.md").read_text()
    section = text.partition("\n## Presets\n")[2].partition("\n## ")[0]
    rows = {
        cells[0].lower(): cells[2:]
        for line in section.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 6
    }
    for server in servers.KNOWN.values():
        if server.refused:
            assert f"{server.name}`" in section or f"`{server.name} " in section
            assert server.name not in values.PRESETS
            continue
        clean = [number for number in server.clean_exits if number >= 0]
        signals = [-number for number in server.clean_exits if number < 0]
        shown = ", ".join(map(str, sorted(clean)))
        shown += f", signals {' and '.join(map(str, sorted(signals, reverse=True)))}" * bool(
            signals
        )
        broken = ", ".join(map(str, sorted(server.broken_exits)))
        name = signal.Signals(server.stop_signal).name.removeprefix("SIG")
        assert rows[server.name] == [name, shown, broken, server.loses], server.name


def test_the_flags_that_are_the_managers_are_in_the_docs() -> None:
    text = " ".join((ROOT / "docs" / "servers.md").read_text().split())
    for server in servers.KNOWN.values():
        for what in filter(None, (server.in_source, *(flag.rstrip("=") for flag in server.own))):
            assert what.partition("(")[0] in text, f"{server.name}: {what}"

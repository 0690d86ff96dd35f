"""What is in the fences of the docs is right: commands, parts of configs, programs, JSON."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sockmgr.api.records import EventKind
from sockmgr.api.varlink import METHODS
from sockmgr.cli import cli
from sockmgr.config import config
from sockmgr.doctor.finding import Check
from tests.helpers.pages import PAGES, ROOT, TOML, whole_configs

_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\s*(?:\$ |sudo |exec )?(?:\S*/)?sockmgr (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`sockmgr ([a-z][^`]+)`")
_AFTER = re.compile(r"\s#|\s[|>&;]|: ")  # a comment, or what the shell does with it
TITLES = {"worker", "template"}  # what ps(1) shows of those of an `app`
_REST = '[listen]\nhttp = "tcp://127.0.0.1:0"\n'


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _fences(page: Path, *kinds: str) -> Iterator[str]:
    for fence in _FENCE.finditer(page.read_text()):
        if fence["kind"] in kinds:
            yield fence["text"]


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each call of sockmgr, in fences and in the text."""
    prose = _FENCE.sub("", page.read_text())
    shown = [" ".join(line.split()) for line in _INLINE.findall(prose)]
    for fence in _fences(page, "", "sh"):
        shown += _COMMAND.findall(fence.replace("\\\n", " "))
    for line in shown:
        called = _AFTER.split(line)[0]
        yield shlex.split(re.sub(r"\[|\]|\.\.\.|…", "", called))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_call_of_sockmgr_has_a_verb_and_options_that_there_are(page: Path) -> None:
    for verb, *rest in filter(None, _commands(page)):
        if verb in TITLES:
            continue
        command = cli.get_command(click.Context(cli), verb)
        assert command, f"{_name(page)}: sockmgr {verb}"
        context = click.Context(command, info_name=verb)
        try:
            command.make_parser(context).parse_args([*rest])
        except click.BadOptionUsage:  # named in the text, without a value
            assert rest[-1].startswith("--"), f"{_name(page)}: sockmgr {verb} {rest}"


def test_calls_are_found() -> None:
    assert sum(len(list(_commands(page))) for page in PAGES) > 300


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_part_of_a_config_in_the_docs_is_accepted_in_one(page: Path) -> None:
    whole = whole_configs(page)
    for text in TOML.findall(page.read_text()):
        if text in whole:
            continue
        service = '[service.web]\ncommand = ["server"]\nlisten = ["http"]\n'
        parts = text.replace("[service.web]\n", service, 1)
        rest = _REST if "[service.web]\n" in text else _REST + service
        config.parse((rest + parts).encode(), file=_name(page))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_program_in_the_docs_can_be_read(page: Path) -> None:
    for text in _fences(page, "python"):
        ast.parse(text)
    for text in _fences(page, "json"):
        json.loads(text)
    for text in _fences(page, "sh"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    if shutil.which("node"):
        for text in _fences(page, "js"):
            subprocess.run(["node", "--check", "-"], input=text, text=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_target_of_make_and_every_module_that_is_called_is_there(page: Path) -> None:
    text = page.read_text()
    calls = "\n".join([*_fences(page, "", "sh"), *re.findall(r"`(make [^`]+)`", text)])
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"^(?:sudo )?make ([a-z-]+)", calls, re.MULTILINE):
        assert target in targets, f"{_name(page)}: make {target}"
    for module in re.findall(r"python -m (tests(?:\.\w+)+)", text):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_methods_in_the_page_on_control_are_those_of_the_interface() -> None:
    text = (ROOT / "docs" / "control.md").read_text().partition("\n## Varlink\n")[2]
    rows = re.findall(r"^\| (`[A-Z]\w+\(.*?`) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`([A-Z]\w+)\(", "".join(rows))) == sorted(
        name.rpartition(".")[2] for name in METHODS if name.startswith("io.sockmgr.")
    )


# --- Operations ----------------------------------------------------------------------------------

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
_SEEN = re.compile(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


def test_what_is_seen_in_operations_is_what_the_program_says() -> None:
    """A phrase of a row is a kind of record, a check of the doctor, or in a message of the source.

    N, and a number, stand for what is different each time.
    """
    known = {*EventKind, *(check.label for check in Check)}
    source = "".join(path.read_text() for path in (ROOT / "sockmgr").rglob("*.py"))
    seen = [phrase for row in _SEEN.findall(OPERATIONS) for phrase in re.findall("`([^`]+)`", row)]
    assert len(seen) > 40
    for phrase in seen:
        pieces = filter(str.strip, re.split(r"\bN\b|\d\S*", phrase))
        assert phrase in known or all(piece.strip() in source for piece in pieces), phrase


def test_what_the_doctor_is_said_to_find_in_operations_are_checks() -> None:
    labels = {check.label for check in Check}
    for cell in re.findall(r"`sockmgr doctor[^`]*`[^:|]*: ([^|]+) \|", OPERATIONS):
        named = set(re.findall("`([a-z-]+)`", cell.partition(" says ")[0]))
        assert named <= labels, named - labels

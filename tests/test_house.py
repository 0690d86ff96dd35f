"""The package is laid out as docs/architecture.md says, and in pieces that can be read."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sockmgr"
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "architecture.md"
AT_THE_ROOT = {"__init__", "__main__", "errors", "exec", "log", "sweep"}

_FENCE = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^\S+", re.MULTILINE)
_NAMED = re.compile(r"`(?!tests/)((?:sockmgr/)?\w+(?:/\w+)+)(?:\.py)?`")

Layers = list[set[str]]


def _layers(which: int) -> Layers:
    """Return one of the lists under "Rooms": what stands in a line each, blank lines between."""
    _, _, section = PAGE.read_text().partition("\n## Rooms\n")
    block = _FENCE.findall(section)[which]
    # A line that begins with a blank goes on with the one before.
    return [set(_ITEM.findall(layer)) for layer in block.split("\n\n")]


def _listed() -> set[str]:
    return {name for which in (0, 1) for layer in _layers(which) for name in layer}


def _contract(container: str) -> Layers:
    contracts = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [
        each["layers"] for each in contracts["contracts"] if each.get("containers") == [container]
    ]
    return [{name.strip(" ()") for name in layer.split("|")} for layer in layers]


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_module_stands_at_the_root_without_need() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == AT_THE_ROOT


def test_every_room_of_the_list_is_in_the_tree() -> None:
    for name in _listed():
        path = PACKAGE / name
        assert path.is_dir() if name.endswith("/") else path.with_suffix(".py").exists(), name


def test_every_room_of_the_tree_is_in_the_list() -> None:
    packages = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py")}
    alone = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.glob("manager/*.py")}
    modules = {str(path) for path in alone if path.stem != "__init__"}
    assert packages - {"./"} | modules | AT_THE_ROOT - {"__init__"} == _listed()


def test_the_layers_of_the_list_are_those_that_the_build_holds() -> None:
    rooms = [{name.strip("/") for name in layer} for layer in _layers(0)]
    top = [{name for name in layer if "/" not in name} for layer in rooms]
    assert top == _contract("sockmgr")
    inside = [{name.strip("/").removeprefix("manager/") for name in layer} for layer in _layers(1)]
    assert inside == _contract("sockmgr.manager")


def test_every_module_that_the_page_names_is_there() -> None:
    named = set(_NAMED.findall(PAGE.read_text()))
    assert len(named) > 40
    for name in named:
        path = PACKAGE / name.removeprefix("sockmgr/")
        assert path.is_dir() or path.with_suffix(".py").exists(), name


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{each.name}" for each in names)
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case _:
                pass


def test_no_module_of_tests_is_imported_by_another() -> None:
    tests = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in TESTS.rglob("test_*.py")}
    assert len(tests) > 100
    for path in TESTS.rglob("*.py"):
        assert not tests & set(_imports(path)), path


# --- Sizes ---------------------------------------------------------------------------------------

LONGEST_FILE, LONGEST_FUNCTION, LONGEST_OF_99_PERCENT = 400, 50, 27


def _functions() -> Iterator[tuple[str, int]]:
    """Yield each function and its lines, without those of its docstring and decorators."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first, last = node.body[0], node.end_lineno or node.lineno
                docstring = (first.end_lineno or 0) - first.lineno + 1
                lines = last - node.lineno + 1 - (docstring if ast.get_docstring(node) else 0)
                yield f"{path.relative_to(PACKAGE)}:{node.name}", lines


def test_no_file_is_too_long_to_be_read() -> None:
    lines = {str(p.relative_to(PACKAGE)): p.read_text().count("\n") for p in PACKAGE.rglob("*.py")}
    assert not {name for name in lines if lines[name] > LONGEST_FILE}


def test_no_function_is_too_long_and_nearly_all_are_short() -> None:
    found = sorted(_functions(), key=lambda one: one[1])
    assert not {name for name, lines in found if lines > LONGEST_FUNCTION}
    assert found[int(len(found) * 0.99)][1] <= LONGEST_OF_99_PERCENT


# --- Comments ------------------------------------------------------------------------------------

COMMENTS_OF_100_LINES = 8
PRAGMAS = ("noqa", "type:", "fmt:", "pragma:")
LAYOUT = (tokenize.ENCODING, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
          tokenize.ENDMARKER)  # fmt: skip


def _docstrings(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that docstrings take."""
    found: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case (
                ast.Module(body=[first, *_])
                | ast.ClassDef(body=[first, *_])
                | ast.FunctionDef(body=[first, *_])
                | ast.AsyncFunctionDef(body=[first, *_])
            ) if ast.get_docstring(node) is not None:
                found.update(range(first.lineno, (first.end_lineno or 0) + 1))
    return found


def _comments_and_code(path: Path) -> tuple[int, int]:
    """Return how many lines have a comment that is no pragma, and how many have code."""
    comments, code = set[int](), set[int]()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                if not token.string.lstrip("# ").startswith(PRAGMAS):
                    comments.add(token.start[0])
            elif token.type not in LAYOUT:
                code.update(range(token.start[0], token.end[0] + 1))
    return len(comments), len(code - _docstrings(ast.parse(path.read_text())))


@pytest.mark.parametrize("room", ["manager", "fleet"])
def test_the_rooms_with_the_densest_logic_say_why(room: str) -> None:
    counts = [_comments_and_code(path) for path in (PACKAGE / room).rglob("*.py")]
    comments, code = (sum(each) for each in zip(*counts, strict=True))
    assert code > 1000
    assert comments * 100 >= COMMENTS_OF_100_LINES * code

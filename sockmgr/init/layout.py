"""Find the module name of a Python file, and the directories from which it is imported."""

from __future__ import annotations

import ast
from collections.abc import Mapping

# A directory with one of these files is a project of its own, in which its servers are started.
_MARKS = (
    "manage.py", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile",
)  # fmt: skip
_SOURCE_FOLDERS = ("src", "lib")


def home(file: str, tree: ast.Module, files: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the directory to start in, that to import from, relative to it, and the module."""
    *folders, name = file.split("/")
    if name == "__init__.py":
        *folders, name = folders if folders else ["__init__"]
    stem = name.removesuffix(".py")
    start = _start(folders, files)
    source = start + _is_source(folders, start, files)
    for index in range(source, len(folders)):
        if not folders[index].isidentifier():
            source = index + 1
    if _runs_in_its_folder(folders, source, tree, files):
        source = len(folders)
    if source > start + 1 or (source > start and folders[start] not in _SOURCE_FOLDERS):
        start = source  # PYTHONPATH is for src/ and lib/ only; start in any other directory
    cwd, path = "/".join(folders[:start]), "/".join(folders[start:source])
    return cwd, path, ".".join([*folders[source:], stem])


def _start(folders: list[str], files: Mapping[str, str]) -> int:
    for length in range(len(folders), 0, -1):
        if any("/".join([*folders[:length], mark]) in files for mark in _MARKS):
            return length
    return 0


def _is_source(folders: list[str], start: int, files: Mapping[str, str]) -> bool:
    if len(folders) <= start or folders[start] not in _SOURCE_FOLDERS:
        return False
    return "/".join([*folders[: start + 1], "__init__.py"]) not in files


def _runs_in_its_folder(
    folders: list[str], source: int, tree: ast.Module, files: Mapping[str, str]
) -> bool:
    """Return whether the file imports its neighbours by their bare names, as a script does."""
    folder = "/".join(folders)
    if len(folders) == source or f"{folder}/__init__.py" in files:
        return False
    return any(
        f"{folder}/{name}.py" in files or f"{folder}/{name}/__init__.py" in files
        for name in _imported(tree)
        if name != folders[source]
    )


def _imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found

"""Read what a project depends on, and its name, from pyproject.toml and the like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tomli

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(\s*\[[^\]]*\])?")


def dependencies(files: Mapping[str, str]) -> dict[str, str]:
    """Return the Python distributions that the project requires, each with the file that does."""
    found: dict[str, str] = {}
    for file in sorted(files, key=lambda path: (path.count("/"), path)):
        for requirement in _requirements(file, files[file]):
            if match := _NAME.match(requirement):
                name = re.sub(r"[-_.]+", "-", match[1]).lower()
                found.setdefault(name, file)
                if name == "fastapi" and "standard" in (match[2] or ""):
                    found.setdefault("uvicorn", file)  # fastapi[standard] requires uvicorn
    return found


def name(files: Mapping[str, str], directory: str) -> str:
    """Return a name for the manager: the name of the project, or that of its directory."""
    project = table(files.get("pyproject.toml", ""))
    package = package_json(files.get("package.json", ""))
    own = [
        _get(project, "project", "name"), _get(project, "tool", "poetry", "name"),
        package.get("name"), directory,
    ]  # fmt: skip
    for text in own:
        if isinstance(text, str):
            short = re.sub(r"[^A-Za-z0-9_.-]+", "-", text.rpartition("/")[2]).strip("-._")[:64]
            if short:
                return short
    return "sockmgr"


def package_json(text: str) -> dict[str, Any]:
    """Return the content of a package.json, {} if it is not valid."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def table(text: str) -> dict[str, Any]:
    """Return the content of a TOML file, {} if it is not valid."""
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError):
        return {}


def _requirements(file: str, text: str) -> Iterator[str]:
    last = file.rpartition("/")[2]
    if last == "pyproject.toml":
        yield from _of_pyproject(table(text))
    elif last == "Pipfile":
        pipfile = table(text)
        yield from (*_keys(pipfile, "packages"), *_keys(pipfile, "dev-packages"))
    elif re.fullmatch(r"requirements.*\.(?:txt|in)", last):
        yield from (line for line in text.splitlines() if not line.strip().startswith(("#", "-")))


def _of_pyproject(project: dict[str, Any]) -> Iterator[str]:
    yield from _texts(_get(project, "project", "dependencies"))
    for place in (("project", "optional-dependencies"), ("dependency-groups",)):
        for group in _keys(project, *place):
            yield from _texts(_get(project, *place, group))
    poetry = ("tool", "poetry")
    yield from _keys(project, *poetry, "dependencies")
    for group in _keys(project, *poetry, "group"):
        yield from _keys(project, *poetry, "group", group, "dependencies")


def _get(document: object, *path: str) -> object:
    for step in path:
        document = document.get(step) if isinstance(document, dict) else None
    return document


def _keys(document: object, *path: str) -> list[str]:
    found = _get(document, *path)
    return [str(key) for key in found] if isinstance(found, dict) else []


def _texts(found: object) -> list[str]:
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

"""Every record that the code may write: its message, and the names of its fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.programs.dispatcher import messages


def records() -> Iterator[tuple[str, set[str | None]]]:
    """Yield the constant message and the names of the fields of each record in the code."""
    for path in sorted((Path(__file__).parents[2] / "sockmgr").rglob("*.py")):
        tree = ast.parse(path.read_text())
        calls = list(calls_of_the_log(tree))
        yield from [(message, fields) for message, fields in calls if message]
        # What a file takes from a table of its own is told by its calls that name no message.
        named = {kind for node in ast.walk(tree) if (kind := kind_named(node))}
        for fields in [fields for message, fields in calls if not message]:
            yield from [(kind, fields) for kind in named]


def calls_of_the_log(
    tree: ast.AST, first_argument: type[ast.expr] = ast.expr
) -> Iterator[tuple[str, set[str | None]]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log" | "_log")) | ast.Name(id="tell"),
                args=[first],
            ) if isinstance(first, first_argument):
                message = first.value if isinstance(first, ast.Constant) else kind_named(first)
                yield str(message), {keyword.arg for keyword in node.keywords}
            # What the dispatcher has its manager log: it cannot import EventKind.
            case ast.Call(func=ast.Attribute(attr="say" | "_say"), args=[_, second]) if isinstance(
                second, first_argument
            ) and (message := _said(second)):
                yield message, {keyword.arg for keyword in node.keywords}
            case _:
                pass


def _said(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return str(getattr(messages, name, ""))
        case ast.Constant(value=str(message)):
            return message
        case _:
            return ""


def kind_named(node: ast.AST) -> str:
    """Return the message of the kind that an expression names, or nothing."""
    match node:
        case ast.Attribute(value=ast.Name(id="EventKind"), attr=name):
            return EventKind[name].value
        case _:
            return ""

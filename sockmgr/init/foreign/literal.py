"""Read Python, JSON, or a JavaScript module that is little more than JSON, and run none of it.

What stands in braces is nearly the same in all three, so one parser reads them: that of Python.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress

from sockmgr.errors import SockmgrError
from sockmgr.init.foreign.form import Computed, Setting, Source

# What has no end goes up to that of its line, or of the file, so that no text is searched twice.
_PIECE = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))|(?P<text>"(?:[^"\\\n]|\\.)*\\?(?:"|\n|\Z)"""
    r"""|'(?:[^'\\\n]|\\.)*\\?(?:'|\n|\Z))|(?P<template>`[^`]*(?:`|\Z))|(?P<operator>\|\||&&|===)""",
    re.DOTALL,
)
_EXPORT = re.compile(r"module\.exports\s*=|export\s+default\b|\A")
_OPERATORS = {"||": " or ", "&&": " and ", "===": " == "}
_WORDS: dict[str, object] = {"true": True, "false": False, "null": "", "undefined": ""}


def python(source: Source) -> Iterator[Setting]:
    """Yield what a Python file assigns to names at its top level."""
    for node in _parsed(source, source.text):
        if isinstance(node, ast.Assign):
            names = (target.id for target in node.targets if isinstance(target, ast.Name))
            yield from (Setting(node.lineno, "", name, _value(node.value)) for name in names)


def braces(source: Source) -> Setting:
    """Return the value that a JSON file is, or that a JavaScript module exports."""
    start = max(match.end() for match in _EXPORT.finditer(source.text))
    before = "\n" * source.text.count("\n", 0, start)
    text = _PIECE.sub(_as_python, source.text[start:]).rstrip().rstrip(";")
    first = next(iter(_parsed(source, f"{before}({text}\n)")), None)
    return Setting(1, "", "", _value(first.value) if isinstance(first, ast.Expr) else "")


def _as_python(match: re.Match[str]) -> str:
    """Return a piece of JavaScript as Python has it, with as many lines."""
    text, lines = match[0], "\n" * match[0].count("\n")
    if match["operator"]:
        return _OPERATORS[text]
    if match["text"]:
        return text.replace("\\/", "/")
    if match["comment"]:
        return lines
    return ("a_template()" if "${" in text else repr(text.strip("`"))) + lines


def _parsed(source: Source, text: str) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise SockmgrError(
            f"{source.name}:{line}: this cannot be read without running it",
            means="nothing was written",
            do="take out what is not a plain value, such as functions and conditions",
        ) from None


def _value(node: ast.expr) -> object:
    """Return a value; an object is a list of Settings, an array a tuple."""
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.Constant(value=None):
            return ""
        case ast.Name(id=name) if name in _WORDS:
            return _WORDS[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(map(_value, items))
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return [Setting(k.lineno, "", _name(k), _value(v)) for k, v in pairs if k]
    with suppress(RecursionError, ValueError):  # a control character in an f-string, before 3.12
        return Computed(ast.unparse(node)[:200])
    return Computed("an expression")


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else str(_value(node))

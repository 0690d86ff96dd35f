"""Where a key stands in a TOML text."""

from __future__ import annotations

import json

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.config import positions

PLACES = '''\
# [service.a] = 1
"quo.ted" = { x.y = 1, 'z' = [ "]", """
}""", # comment ]
  { q = 2 } ] }
[ a . "b c" ]
d = \'\'\'
e = 1
\'\'\'
e.f.g = 1979-05-27T07:32:00Z
[[t]]
x = 1
[[t]]
x = 0x1f
[[t.u]]
y = """a""""
[t.v]
z = "\\\\"'''  # it ends without a newline


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("quo.ted",), "2:1", "2:13"),
        (("quo.ted", "x", "y"), "2:15", "2:21"),
        (("quo.ted", "z", 0), "2:32", "2:32"),
        (("quo.ted", "z", 1), "2:37", "2:37"),
        (("quo.ted", "z", 2, "q"), "4:5", "4:9"),
        (("a", "b c"), "5:1", "5:1"),
        (("a", "b c", "d"), "6:1", "6:5"),
        (("a", "b c", "e"), "9:1", "9:1"),
        (("a", "b c", "e", "f", "g"), "9:1", "9:9"),
        (("t", 0, "x"), "11:1", "11:5"),
        (("t", 1, "x"), "13:1", "13:5"),
        (("t", 1, "u", 0, "y"), "15:1", "15:5"),
        (("t", 1, "v", "z"), "17:1", "17:5"),
        (("a", "b c", "missing"), "5:1", "5:1"),
        (("missing",), "1:1", "1:1"),
    ],
)
def test_a_key_and_its_value_are_found_where_they_stand(
    path: positions.Path, key: str, value: str
) -> None:
    tomli.loads(PLACES)
    for text in (PLACES, PLACES.replace("\n", "\r\n")):
        assert str(positions.find(text, path, key=True)) == key
        assert str(positions.find(text, path)) == value


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=5)
TREES = st.recursive(
    st.integers() | st.booleans() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def written(value: object) -> str:
    """Write a value as TOML, whose texts may be written as those of JSON are."""
    if isinstance(value, dict):
        pairs = (f"{written(key)} = {written(it)}" for key, it in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[ {', '.join(map(written, value))} ]"
    return json.dumps(value, ensure_ascii=False)


def nodes(value: object, path: positions.Path = ()) -> list[tuple[positions.Path, object]]:
    """Return every path under `value` with what stands there."""
    children: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    return [(path, value), *(node for key, it in children for node in nodes(it, (*path, key)))]


@given(st.dictionaries(TEXTS, TREES, max_size=3))
def test_every_value_of_any_document_is_found(document: dict[str, object]) -> None:
    text = "\n".join(f"{written(key)} = {written(value)}" for key, value in document.items())
    assert tomli.loads(text) == document
    lines = text.split("\n")
    for path, value in nodes(document)[1:]:
        at = positions.find(text, path)
        assert lines[at.line - 1][at.column - 1 :].startswith(written(value))

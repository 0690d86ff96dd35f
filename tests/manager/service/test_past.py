"""What a service remembers: bad records and bad files are no reason to end."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import ReleaseName, Spec
from sockmgr.errors import ControlError
from sockmgr.manager.service.past import Past
from tests.fleet.story import make_spec
from tests.fleet.world import World

CONTEXT: Any = SimpleNamespace(
    loop=SimpleNamespace(time=lambda: 100.0), sink=None, family=None
)  # fmt: skip


def a_world(spec: Spec) -> World:
    world = World()
    world.start(spec)
    world.ready("1.1")
    return world


def resumed(spec: Spec, record: bytes = b"") -> Past:
    past = Past("web", CONTEXT, lambda: None)
    past.resume(record, a_world(spec).fleet)
    return past


def named(directory: Path, file: str = "REVISION") -> str:
    spec = replace(make_spec("v1"), cwd=str(directory), release=ReleaseName(file=file))
    return resumed(spec).history.release(1)


def test_a_history_that_cannot_be_read_is_told_in_the_log_and_what_serves_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "sockmgr"):
        past = resumed(make_spec("v1"), b"no history")
    assert "history not read" in caplog.text
    (told,) = past.history.told("web", 100.0)
    assert (told.generation, told.serves) == (1, True)
    with pytest.raises(ControlError, match="nothing is known"):
        past.history.target(a_world(make_spec("v1")).fleet.current, None)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"v1\nv2\n", "v1"),
        (b"\n\n  v1  \r\n", "v1"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"x" * 5000, "x" * 100),
        (b"", ""),
        (b" \n\n", ""),
    ],
)
def test_the_name_in_a_file_is_its_first_line_without_what_a_terminal_obeys(
    content: bytes, name: str, tmp_path: Path
) -> None:
    (tmp_path / "REVISION").write_bytes(content)
    assert named(tmp_path) == name


def test_what_is_no_file_below_the_directory_names_nothing(tmp_path: Path) -> None:
    release = tmp_path / "release"
    (release / "sub").mkdir(parents=True)
    assert named(release, "missing") == named(release, "sub") == ""
    (tmp_path / "outside").write_text("outside")
    (release / "link").symlink_to(tmp_path / "outside")
    (release / "above").symlink_to(tmp_path)
    assert named(release, "link") == named(release, "above/outside") == ""
    (release / "sub" / "name").write_text("inside")
    (release / "REVISION").symlink_to("sub/name")
    assert named(release) == "inside"

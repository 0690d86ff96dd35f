"""What workers print arrives under load, in each format, also from workers that were adopted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered
from tests.helpers.load import Load

PROGRAM = Path(__file__).parent / "programs" / "printer.py"
# Sends stdout elsewhere than stderr.
APART = ("sh", "-c", 'out="$1"; shift; exec "$@" >>"$out"', "sh")

Seen = Callable[[str, str], str]


def prefixed(stream: str, said: str) -> str:
    del stream
    return f"printer@1.1 | {said}"


def raw(stream: str, said: str) -> str:
    del stream
    return said


def config(directory: Path, logs: str) -> str:
    return f"""\
{Release(directory).config()}
[service.printer]
command = ["{sys.executable}", "-S", "-E", "{PROGRAM}", "{directory}/fifo"]
listen = []
ready = {{ exec = ["test", "-p", "{directory}/fifo"] }}

[logs]
{logs}
"""


@pytest.mark.parametrize(
    ("logs", "line"),
    [('format = "prefix"\nsplit = true', prefixed), ('format = "raw"', raw)],
    ids=["split", "raw"],
)
def test_each_stream_arrives_at_its_own_from_adopted_workers_too(
    tmp_path: Path, logs: str, line: Seen
) -> None:
    out = tmp_path / "stdout.log"
    text = config(tmp_path, logs).replace("[service.web]", '[service.web]\nlisten = ["http"]', 1)
    with Manager(tmp_path, text, under=(*APART, str(out))) as manager:

        def tell(word: str) -> None:
            (tmp_path / "fifo").write_text(f"{word}\n")
            for stream, told in (("out", out.read_text), ("err", lambda: manager.log)):
                wanted = line(stream, f"{stream} {word}")
                wait_for(lambda told=told, w=wanted: w in told().splitlines(), wanted)

        with Load(manager.target(), LIGHT) as load:
            tell("first")
            (pid,) = [worker["pid"] for worker in manager.workers("printer")]
            manager.kill9()
            if line is raw:  # nobody is in between
                tell("alone")
            manager.start()
            manager.wait_serving()
            tell("adopted")
            assert manager.say("upgrade").code == 0
            tell("upgraded")
            assert [worker["pid"] for worker in manager.workers("printer")] == [pid]
            answered(load, count=3)
        assert not load.result.failed, load.result.failures()
        assert "err" not in out.read_text()
        assert "out upgraded" not in manager.log


def test_with_json_each_line_is_an_object_that_says_where_it_was_printed(tmp_path: Path) -> None:
    text = config(tmp_path, 'format = "json"')
    text = text.replace("[service.web]", '[service.web]\nlisten = ["http"]', 1)
    with Manager(tmp_path, text) as manager:

        def tell(word: str) -> None:
            (tmp_path / "fifo").write_text(f"{word}\n")
            for stream in ("out", "err"):
                wait_for(lambda s=stream: found(f"{s} {word}") == [f"std{s}"], f"{stream} {word}")

        def found(said: str) -> list[str]:
            lines = [json.loads(each) for each in manager.log.splitlines()]
            return [
                each["stream"]
                for each in lines
                if each.get("worker") == "printer@1.1" and each.get("line") == said
            ]

        with Load(manager.target(), LIGHT) as load:
            tell("first")
            manager.kill9()
            manager.start()
            manager.wait_serving()
            tell("adopted")
            assert manager.say("upgrade").code == 0
            tell("upgraded")
            answered(load, count=3)
        assert not load.result.failed, load.result.failures()

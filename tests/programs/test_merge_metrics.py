"""Files of prometheus_client are added up when their process has ended, whoever dies meanwhile."""

from __future__ import annotations

import fcntl
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from sockmgr.metrics import application
from sockmgr.metrics.application import ApplicationCollector
from sockmgr.programs import merge_metrics

# Counts as its arguments say, and ends when its standard input does.
COUNTING = """
import json, sys
from prometheus_client import Counter, Gauge, Histogram, Summary
number = float(sys.argv[1])
counter = Counter("jobs", "Jobs.", ["kind", "service"])
counter.labels("mail", "a").inc(number)
counter.labels("x" * int(number), "a").inc()
Histogram("wait", "How long.", buckets=(1, 5)).observe(number)
Summary("size", "How large.").observe(number)
for mode in ("all", "liveall", "sum", "livesum", "max", "min", "mostrecent"):
    gauge = Gauge(f"at_{mode}", "Now.", multiprocess_mode=mode)
    gauge.set_to_current_time() if mode == "mostrecent" else gauge.set(number)
print("counted", flush=True)
sys.stdin.read()
"""


@contextmanager
def counting(directory: Path, number: int) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    argv = [sys.executable, "-c", COUNTING, str(number)]
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "counted\n"
        yield process


def counted(directory: Path, number: int) -> None:
    """Have a process count that has ended when this returns."""
    with counting(directory, number):
        pass


def merge(directory: Path) -> str:
    argv = [sys.executable, "-I", "-S", merge_metrics.__file__, str(directory)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def samples(directory: Path) -> dict[str, float]:
    """Return what the library itself makes of a directory, but for gauges of single processes."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return {
        f"{each.name}{json.dumps(each.labels, sort_keys=True)}": each.value
        for metric in registry.collect()
        for each in metric.samples
        if not each.name.endswith("all")
    }


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


TORN = struct.pack("I4xI", 4096, 100) + b'["jobs"'
WHOLE = {f"{kind}_ended.db" for kind in (
    "counter", "histogram", "summary", "gauge_sum", "gauge_max", "gauge_min", "gauge_mostrecent"
)}  # fmt: skip


@pytest.mark.parametrize("numbers", [(3,), (1, 2, 3, 4, 5)])
def test_sums_are_those_of_the_library(numbers: tuple[int, ...], tmp_path: Path) -> None:
    for number in numbers:
        counted(tmp_path, number)
    before = samples(tmp_path)
    assert before['jobs_total{"kind": "mail", "service": "a"}'] == sum(numbers)
    del before["at_livesum{}"]  # of processes that live
    assert merge(tmp_path) == ""
    assert names(tmp_path) == WHOLE
    assert samples(tmp_path) == pytest.approx(before)


def test_more_and_more_processes_leave_no_more_files(tmp_path: Path) -> None:
    for number in range(1, 6):
        counted(tmp_path, number)
        merge(tmp_path)
        assert names(tmp_path) == WHOLE
    found = samples(tmp_path)
    assert found['jobs_total{"kind": "mail", "service": "a"}'] == 15
    assert found['wait_bucket{"le": "1.0"}'] == 1
    assert found['wait_bucket{"le": "5.0"}'] == found["wait_count{}"] == 5
    assert (found["at_max{}"], found["at_min{}"], found["at_sum{}"]) == (5, 1, 15)


def test_a_process_that_lives_keeps_its_files_and_counts_on(tmp_path: Path) -> None:
    with counting(tmp_path, 2) as living:
        counted(tmp_path, 3)
        merge(tmp_path)
        own = {name for name in names(tmp_path) if name not in WHOLE}
        assert own
        assert all(name.endswith(f"_{living.pid}.db") for name in own)
        assert samples(tmp_path)['jobs_total{"kind": "mail", "service": "a"}'] == 5
        assert samples(tmp_path)["at_livesum{}"] == 2
    merge(tmp_path)
    assert names(tmp_path) == WHOLE


# Runs the program until one step of it, for the counters, before or behind which it is killed.
DYING = """
import os, sys
from pathlib import Path
from sockmgr.programs import merge_metrics
step, late = sys.argv[2], sys.argv[3] == "late"
own = getattr(Path, step)
def die(self, *arguments, **options):
    if "counter" not in self.name or (step, self.name) == ("unlink", ".counter"):
        return own(self, *arguments, **options)
    late and own(self, *arguments)
    os.kill(os.getpid(), 9)
setattr(Path, step, die)
os.chdir(sys.argv[1])
merge_metrics.merge()
"""


@pytest.mark.parametrize("step", ["replace", "unlink"])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_death_at_any_step_counts_nothing_twice_and_loses_nothing(
    step: str, when: str, tmp_path: Path
) -> None:
    counted(tmp_path, 1)
    merge(tmp_path)
    counted(tmp_path, 2)
    counted(tmp_path, 3)
    before = told(tmp_path)
    argv = [sys.executable, "-c", DYING, str(tmp_path), step, when]
    assert subprocess.run(argv, check=False).returncode == -9
    assert told(tmp_path) == before
    merge(tmp_path)
    assert told(tmp_path) == before
    assert names(tmp_path) == WHOLE
    # Nothing of it is remembered: a file of the same name is another one.
    assert merge_metrics.parse((tmp_path / "counter_ended.db").read_bytes())[1] == []


def told(directory: Path) -> dict[str, float]:
    """Return what the application's counters are told to be, by `sockmgr metrics`."""
    reads = ApplicationCollector(lambda: None, print)  # type: ignore[arg-type,return-value]
    return {
        f"{each.name}{sorted(each.labels.items())}": each.value
        for metric in reads._read(directory, math.inf)
        for each in metric.samples
        if metric.type == "counter"
    }


def test_services_are_told_apart_by_a_label_and_one_of_the_application_gets_another_name(
    tmp_path: Path,
) -> None:
    for service, number in (("web", 1), ("back", 2)):
        directory = tmp_path / "shop.metrics" / service
        directory.mkdir(parents=True)
        counted(directory, number)
    client = SimpleNamespace(path=tmp_path / "shop.sock")
    found = list(ApplicationCollector(lambda: client, print).collect())  # type: ignore[arg-type,return-value]
    [jobs] = [metric for metric in found if metric.name == "jobs"]
    mails = [each for each in jobs.samples if each.labels["kind"] == "mail"]
    assert [(each.labels["service"], each.value) for each in mails] == [("back", 2), ("web", 1)]
    assert {each.labels["exported_service"] for each in mails} == {"a"}


def test_what_cannot_be_read_is_told_and_the_rest_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for service in ("back", "web"):
        (tmp_path / "shop.metrics" / service).mkdir(parents=True)
    counted(tmp_path / "shop.metrics" / "web", 1)
    (tmp_path / "shop.metrics" / "back" / "counter_7.db").write_bytes(TORN)
    (tmp_path / "shop.metrics" / "web" / "counter_7.db").touch()  # it has not written yet
    os.mkfifo(tmp_path / "shop.metrics" / "web" / "counter_8.db")
    client = SimpleNamespace(path=tmp_path / "shop.sock")
    found = list(ApplicationCollector(lambda: client, print).collect())  # type: ignore[arg-type,return-value]
    assert {each.labels["service"] for metric in found for each in metric.samples} == {"web"}
    assert "back cannot be read" in capsys.readouterr().out


def test_a_worker_that_holds_the_lock_is_waited_for_once_and_costs_others_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for service in ("back", "web"):
        (tmp_path / "shop.metrics" / service).mkdir(parents=True)
        put(tmp_path / "shop.metrics" / service / "counter_8.db", GOOD)
    client = SimpleNamespace(path=tmp_path / "shop.sock")
    reads = ApplicationCollector(lambda: client, print)  # type: ignore[arg-type,return-value]

    def services() -> set[str]:
        return {one.labels["service"] for metric in reads.collect() for one in metric.samples}

    held = os.open(tmp_path / "shop.metrics" / "back", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    monkeypatch.setattr(application, "PATIENCE", 0.0)
    assert services() == {"web"}
    monkeypatch.setattr(application, "PATIENCE", 3600.0)  # another wait would have no end
    assert services() == {"web"}
    assert capsys.readouterr().out.count("back cannot be read") == 2
    os.close(held)
    assert services() == {"back", "web"}


def test_what_is_torn_is_told_and_removed_and_what_is_none_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "counter_7.db").write_bytes(TORN)
    (tmp_path / "counter_8.db").touch()  # its process was killed before it wrote anything
    others = ["notes.db", "gauge_new_9.db", "counter_10.txt"]
    for name in others:
        (tmp_path / name).write_bytes(b"\x08\0\0\0\0\0\0\0")
    os.mkfifo(tmp_path / "counter_11.db")
    counted(tmp_path, 1)
    assert merge(tmp_path).startswith("counter_7.db is torn, and what was counted there is lost")
    assert names(tmp_path) == WHOLE | {*others, "counter_11.db"}


def entry(key: object, value: float = 1.0) -> bytes:
    text = key if isinstance(key, bytes) else json.dumps(key).encode()
    padded = text + b" " * (8 - (len(text) + 4) % 8)
    return struct.pack(f"I{len(padded)}sdd", len(text), padded, value, 0.0)


def put(path: Path, *keys: object) -> None:
    body = b"".join(entry(key) for key in keys)
    path.write_bytes(struct.pack("I4x", 8 + len(body)) + body)


GOOD = ["jobs", "jobs_total", {"kind": "mail"}, "Jobs."]
ODD = (
    5, {}, [], ["m", "m", [1], "h"], ["m", "m", ["a"], "h"], ["m", "m", 5, "h"],
    [["m"], "m", {}, "h"],
    ["m", 5, {}, "h"], ["m", "m", {"a": 1}, "h"], ["m", "m", {"a": None}, "h"], ["m", "m", {}, 5],
    ["m", "m", {}, None], ["m", "m", {}, "h", 1], ["", "", {}, "h"], ["m m", "m m", {}, "h"],
    ["m", "m 1\nsockmgr_up", {}, "h"], ["m", "sockmgr_up", {}, "h"], ["m", "m", {"a b": "c"}, "h"],
    ["m", "m", {"__name__": "sockmgr_up"}, "h"], ["m", "m", {"a": "\ud800"}, "h"],
    ["m", "m", {}, "\ud800"], ["m", "m", {}, "\0"], b"[" * 100_000, b"\xff\xfe", b"9" * 5000,
    ["sockmgr_up", "sockmgr_up", {}, "h"], ["sockmgr", "sockmgr_total", {}, "h"],
)  # fmt: skip


@pytest.mark.parametrize("kind", ["counter", "gauge_all", "histogram", "summary"])
def test_an_entry_that_cannot_be_exported_is_left_out_alone(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "shop.metrics" / "web"
    directory.mkdir(parents=True)
    put(directory / f"{kind}_7.db", *ODD)
    put(directory / "histogram_9.db", ["m", "m_bucket", {"le": "many"}, "h"])
    put(directory / "gauge_1.db", ["m", "m", {}, "A gauge without a mode."])
    put(directory / "counter_8.db", GOOD)
    registry = CollectorRegistry()
    client = SimpleNamespace(path=tmp_path / "shop.sock")
    registry.register(ApplicationCollector(lambda: client, print))  # type: ignore[arg-type,return-value]
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'jobs_total{kind="mail",service="web"} 1.0'
    ]
    assert len(lines) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["counter_ended.db", "counter_7.db"])
def test_nothing_but_a_regular_file_is_opened(name: str, tmp_path: Path) -> None:
    directory, secret = tmp_path / "web", tmp_path / "secret"
    directory.mkdir()
    put(secret, GOOD)
    makers = (os.mkfifo, os.mkdir, lambda path: path.symlink_to(secret),
              lambda path: path.symlink_to("/dev/zero"))  # fmt: skip
    for make in makers:
        path = directory / name
        make(path)
        put(directory / "counter_8.db", ["size", "size_total", {}, "Size."])
        assert set(told(directory)) == {"size_total[]"}
        argv = [sys.executable, "-I", "-S", merge_metrics.__file__, str(directory)]
        subprocess.run(argv, check=False, capture_output=True)
        assert path.is_dir() or path.is_fifo() or path.is_symlink()
        path.rmdir() if make is os.mkdir else path.unlink()
    assert secret.read_bytes().count(b"jobs_total") == 1


def test_what_is_too_large_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "counter_7.db", GOOD)
    os.truncate(tmp_path / "counter_7.db", 1 << 40)
    assert told(tmp_path) == {}
    assert "counter_7.db is no regular file, or larger than" in capsys.readouterr().out
    counted(tmp_path, 1)
    assert merge(tmp_path) == ""
    assert names(tmp_path) == {*WHOLE, "counter_7.db"}


def test_many_files_of_one_service_take_no_more_than_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(application, "ROOM", 2000)
    for number in range(4):
        put(tmp_path / f"counter_{number}.db", GOOD)
    assert told(tmp_path) == {}
    assert "cannot be read: there are too many" in capsys.readouterr().out


def test_the_sums_stay_as_small_as_can_be_read_again(tmp_path: Path) -> None:
    key = entry(GOOD)
    code = (
        "import os, sys; from sockmgr.programs import merge_metrics as m; os.chdir(sys.argv[1]); "
        f"m.LIMIT = m._NAMES + 8 + {len(key)}; m.merge()"
    )
    put(tmp_path / "counter_7.db", GOOD, ["size", "size_total", {}, "Size."], GOOD)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert done.stdout == "counter_ended.db is full, and what was counted for new series is lost\n"
    assert set(told(tmp_path)) == {"jobs_total[('kind', 'mail')]"}


def test_no_link_is_written_through(tmp_path: Path) -> None:
    directory, victim = tmp_path / "web", tmp_path / "victim"
    directory.mkdir()
    victim.write_text("as it was")
    (directory / ".counter").symlink_to(victim)
    counted(directory, 1)
    before = told(directory)
    assert merge(directory) == ""
    assert victim.read_text() == "as it was"
    assert told(directory) == before
    assert names(directory) == WHOLE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_nothing_is_done_in_the_directory_of_another_user(tmp_path: Path) -> None:
    put(tmp_path / "counter_7.db", GOOD)
    os.chown(tmp_path, 65534, -1)
    assert merge(tmp_path) == ""
    assert names(tmp_path) == {"counter_7.db"}

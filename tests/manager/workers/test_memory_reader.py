"""What workers have in their memory is read, and whoever does not let it be read hangs nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from sockmgr.manager.workers import memory_reader as module
from sockmgr.manager.workers.memory_reader import MemoryReader
from tests.helpers.children import PATIENCE, children, open_fds, python, wait_until

HOLDS = """
import ctypes, time
text = ctypes.create_string_buffer(b"what is here")
print(ctypes.addressof(text), flush=True)
time.sleep(60)
"""
# userfaultfd(2): whoever touches the page waits for an answer, which never comes.
HANGS = """
import ctypes, fcntl, mmap, os, struct, sys, time
fd = ctypes.CDLL(None, use_errno=True).syscall({number}, os.O_CLOEXEC)
if fd < 0:
    print(0, flush=True)
    sys.exit()
fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("@3Q", 0xAA, 0, 0)))  # UFFDIO_API
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
# UFFDIO_REGISTER, UFFDIO_REGISTER_MODE_MISSING
fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack("@4Q", address, 4096, 1, 0)))
print(address, flush=True)
time.sleep(60)
""".format(number={"x86_64": 323, "aarch64": 282}.get(os.uname().machine, -1))


@pytest.fixture
def reader() -> Iterator[MemoryReader]:
    before = open_fds()
    reader = MemoryReader()
    reader.use()
    yield reader
    reader.leave()
    assert open_fds() == before


def read(reader: MemoryReader, pid: int, address: int, size: int) -> bytes:
    """Look again until there is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := reader.read(pid, address, size)):
        assert time.monotonic() < deadline
    return found


def test_what_is_in_the_memory_of_a_worker_is_read(reader: MemoryReader) -> None:
    with python(HOLDS) as child:
        assert read(reader, child.pid, int(child.line()), 12) == b"what is here"
    with pytest.raises(FileNotFoundError):
        reader.read(child.pid, 0, 1)


def test_memory_that_does_not_answer_hangs_nobody_and_other_workers_are_read_on(
    reader: MemoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANGS_AFTER", 0.3)
    with python(HANGS) as hostile, python(HOLDS) as honest:
        there = int(hostile.line())
        if not there:
            pytest.skip("userfaultfd(2) is not permitted here")
        here = int(honest.line())
        assert read(reader, honest.pid, here, 12)
        longest = 0.0
        for _ in range(200):
            began = time.monotonic()
            assert reader.read(hostile.pid, there, 8) == b""
            longest = max(longest, time.monotonic() - began)
        assert longest < 0.3  # never as long as it takes to find out
        assert read(reader, honest.pid, here, 12) == b"what is here"


def test_a_helper_that_was_killed_is_started_again(reader: MemoryReader) -> None:
    with python(HOLDS) as child:
        here = int(child.line())
        before = children()
        assert read(reader, child.pid, here, 12)
        (helper,) = children() - before
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)
        assert read(reader, child.pid, here, 12) == b"what is here"


@pytest.mark.parametrize("program", ["/no/such/python", "/bin/false"])
def test_without_a_helper_memory_is_read_all_the_same(
    program: str, reader: MemoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with python(HOLDS) as child:
        monkeypatch.setattr(module.sys, "executable", program)
        assert read(reader, child.pid, int(child.line()), 12) == b"what is here"


def test_the_helper_ends_when_nobody_reads_any_more() -> None:
    reader, before = MemoryReader(), children()
    reader.use()
    with python(HOLDS) as child:
        assert read(reader, child.pid, int(child.line()), 12)
        (helper,) = children() - before - {child.pid}
        reader.leave()
        wait_until(lambda: os.waitpid(helper, os.WNOHANG)[0] == helper, what="its end")

"""What a manager at rest keeps in its memory."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import Manager

CONFIG = """
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
command = ["sleep", "1000"]
listen = ["http"]
drain_timeout = 0
ready = { delay = 0 }
"""
# What other verbs need, the metrics, seldom taken paths, or the dispatcher, another process.
ELSEWHERE = {
    "rich", "psutil", "watchfiles", "prometheus_client", "uvicorn", "multiprocessing",
    "sockmgr.cli.status", "sockmgr.top", "sockmgr.dev", "sockmgr.doctor", "sockmgr.metrics",
    "sockmgr.worker.server", "sockmgr.programs.dispatcher.server",
    "sockmgr.programs.dispatcher.dispatcher", "sockmgr.kernel.steering.bpf",
    "encodings.idna", "stringprep", "unicodedata", "secrets", "random", "shutil",
    "bz2", "lzma",
}  # fmt: skip


def test_a_manager_that_serves_and_is_asked_imports_nothing_that_others_need(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, CONFIG, env={"PYTHONPROFILEIMPORTTIME": "1"}) as manager:
        assert manager.run("status").code == 0
        lines = [line for line in manager.log.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert {"sockmgr.manager.manager", "sockmgr.manager.workers.worker"} <= imported
    assert not imported & ELSEWHERE

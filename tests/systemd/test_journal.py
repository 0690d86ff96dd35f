"""What a manager and its workers write to the journal of a real systemd, and who can read it."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sockmgr.api.records import EventKind
from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE, Site

HTTP = {"http": "tcp://127.0.0.1:8000"}
READER = (Path(__file__).parents[2] / "contrib/systemd/drop-ins/journal.conf").read_text()
CATALOG = "/srv/checkout/contrib/systemd/sockmgr.catalog"


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site that serves version 1."""
    site = Site(machine, HTTP)
    site.install()
    site.start()
    return site


def entries(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    machine.run("journalctl", "--sync")
    found = machine.run("journalctl", "-q", "--all", "--output=json", *matches).stdout
    return [json.loads(line) for line in found.splitlines()]


def run_instead(site: Site, script: str) -> None:
    """Have workers of the next generation be a shell that runs `script`."""
    lines = site.machine.run("cat", site.config).stdout.splitlines()
    command = f'command = ["/bin/sh", "-c", "{script}"]'
    changed = [command if line.startswith("command") else line for line in lines]
    site.machine.write(site.config, "\n".join(changed))


def reload_as_service_user(site: Site) -> dict[str, Any]:
    """Reload as a user who may not read the journal; return the verdict."""
    done = site.machine.run(
        "setpriv", "--reuid=sockmgr", "--regid=sockmgr", "--clear-groups",
        "sockmgr", "reload", "--json", "-c", site.config, check=False,
    )  # fmt: skip
    (verdict,) = json.loads(done.stdout)
    return dict(verdict)


def ask(site: Site, path: str) -> dict[str, Any]:
    """Make a request; return the answer of the worker, which may be its last."""
    return site.inside(lambda: _ask(path))


def _ask(path: str) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", 8000), timeout=20) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        found: dict[str, Any] = json.loads(client.makefile("rb").read().partition(b"\r\n\r\n")[2])
        return found


# --- Records -------------------------------------------------------------------------------------


def test_why_a_manager_cannot_start_is_an_error(site: Site) -> None:
    site.machine.run("sed", "-i", "s/^command/comand/", site.config)
    site.machine.systemctl("stop", SERVICE)
    assert site.machine.systemctl("start", SERVICE, check=False).returncode
    said = [each["MESSAGE"] for each in entries(site.machine, "-u", SERVICE, "PRIORITY=3")]
    assert any(line.startswith("error: ") and "comand" in line for line in said), said


def test_a_kind_of_event_is_found_by_its_id_with_service_generation_and_worker(site: Site) -> None:
    found = entries(site.machine, f"MESSAGE_ID={EventKind.WORKER_READY.id}")
    assert {entry["SOCKMGR_WORKER"] for entry in found} == {"http@1.1", "http@1.2"}
    assert {
        (entry["SOCKMGR_SERVICE"], entry["SOCKMGR_GENERATION"], entry["SOCKMGR_EVENT"],
         entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["_SYSTEMD_UNIT"])
        for entry in found
    } == {("http", "1", "worker-ready", "6", "sockmgr", SERVICE)}  # fmt: skip


def test_a_reload_that_is_aborted_is_an_error_with_its_reason(site: Site) -> None:
    site.deploy("2", fault="exits")
    site.machine.systemctl("reload", SERVICE, check=False)
    (entry,) = entries(site.machine, "SOCKMGR_EVENT=aborted", "SOCKMGR_SERVICE=http", "-p", "err")
    assert entry["SOCKMGR_GENERATION"] == "2"
    assert "exited with status" in entry["SOCKMGR_REASON"]


def test_journalctl_explains_a_record_with_the_catalog(site: Site) -> None:
    # Over what is the host's, and is not to be written.
    site.machine.run("mount", "--bind", CATALOG, "/usr/lib/systemd/catalog/systemd.catalog")
    site.machine.run("journalctl", "--update-catalog")
    site.machine.run("journalctl", "--sync")
    told = site.machine.run("journalctl", "-x", "SOCKMGR_EVENT=serving").stdout
    assert "Subject: Service http serves" in told
    assert "All wanted workers of its first generation, 1, are ready." in told


def test_a_journald_that_hangs_holds_up_neither_a_reload_nor_a_request(site: Site) -> None:
    site.machine.systemctl("kill", "--signal=STOP", "systemd-journald.service")
    for version in ("2", "3"):
        site.deploy(version)
        site.machine.systemctl("reload", SERVICE)
        assert site.get()["version"] == version
    site.machine.systemctl("kill", "--signal=CONT", "systemd-journald.service")
    found = entries(site.machine, "SOCKMGR_EVENT=committed")
    assert [entry["SOCKMGR_GENERATION"] for entry in found] == ["2", "3"]


# --- Workers -------------------------------------------------------------------------------------


def test_a_worker_writes_to_the_journal_by_itself_under_its_own_name(site: Site) -> None:
    pid = str(ask(site, "/do/die")["pid"])
    (said,) = wait_for(lambda: entries(site.machine, "MESSAGE=died in probation"), "what it said")
    assert said["SYSLOG_IDENTIFIER"] in ("http@1.1", "http@1.2")
    assert (said["_PID"], said["_SYSTEMD_UNIT"], said["_TRANSPORT"]) == (pid, SERVICE, "stdout")
    how = "MESSAGE=ended: exited with status 9"
    (ended,) = wait_for(lambda: entries(site.machine, how), "how it ended")
    assert ended["SYSLOG_IDENTIFIER"] == said["SYSLOG_IDENTIFIER"]
    assert ended["_STREAM_ID"] == said["_STREAM_ID"]
    assert ended["_PID"] == str(site.main_pid)


def test_a_worker_is_told_that_its_stderr_is_the_journal(site: Site) -> None:
    pid = site.get()["pid"]
    environ = site.machine.run("cat", f"/proc/{pid}/environ").stdout.split("\0")
    stderr = site.machine.run("stat", "-L", "-c", "%d:%i", f"/proc/{pid}/fd/2").stdout.strip()
    assert f"JOURNAL_STREAM={stderr}" in environ


def test_the_journal_knows_whose_the_lines_are_of_workers_that_end_at_once(site: Site) -> None:
    run_instead(site, "echo out; echo err >&2; printf cut; exit 3")
    site.machine.systemctl("reload", SERVICE, check=False)
    streams: dict[str, list[str]] = {}
    for entry in entries(site.machine, "SYSLOG_IDENTIFIER=http@2.1"):
        assert entry["_SYSTEMD_UNIT"] == SERVICE
        streams.setdefault(entry["_STREAM_ID"], []).append(entry["MESSAGE"])
    # Of several tries; the last may have been drained before it said anything.
    whole = [said for said in streams.values() if said[-1] == "ended: exited with status 3"]
    assert whole
    assert all(said[:-1] == ["out", "err", "cut"] for said in whole)


def test_what_a_readiness_command_prints_is_in_the_journal_with_the_name_of_its_worker(
    machine: Machine,
) -> None:
    site = Site(machine, HTTP, more='ready = { exec = ["/bin/sh", "-c", "echo looked; true"] }')
    site.install()
    site.start()
    found = entries(machine, "MESSAGE=looked")
    assert {entry["SOCKMGR_WORKER"] for entry in found} == {"http@1.1", "http@1.2"}
    assert {entry["SYSLOG_IDENTIFIER"] for entry in found} == {"http@1.1 ready?", "http@1.2 ready?"}


def test_the_next_manager_goes_on_with_the_stream_of_a_worker_that_it_adopts(site: Site) -> None:
    site.drop_in("[Service]\nKillMode=process\nFileDescriptorStoreMax=512\nRestartSec=100ms\n")
    site.machine.systemctl("restart", SERVICE)
    old = site.main_pid
    site.machine.run("kill", "-KILL", str(old))
    wait_for(lambda: site.main_pid not in (0, old), "another manager")
    wait_for(lambda: site.machine.property(SERVICE, "ActiveState") == "active", "READY=1")
    ask(site, "/do/die")
    (said,) = wait_for(lambda: entries(site.machine, "MESSAGE=died in probation"), "what it said")
    how = "MESSAGE=ended: exited with status 9"
    (ended,) = wait_for(lambda: entries(site.machine, how), "how it ended")
    assert ended["_STREAM_ID"] == said["_STREAM_ID"]
    assert ended["_PID"] == str(site.main_pid)


def test_streams_are_closed_when_their_workers_have_ended(site: Site) -> None:
    def streams() -> int:
        listed = site.machine.run("ls", "-l", f"/proc/{site.main_pid}/fd").stdout
        return listed.count("socket:")

    before = streams()
    for version in ("2", "3"):
        site.deploy(version)
        site.machine.systemctl("reload", SERVICE)
    wait_for(lambda: len(site.workers()) == 2, "the old workers to end")
    assert streams() == before


# --- Where there is no way to the journal ---------------------------------------------------------


def without(machine: Machine, path: str) -> Site:
    """Return a site whose manager cannot reach a path."""
    site = Site(machine, HTTP)
    site.install()
    site.drop_in(f"[Service]\nInaccessiblePaths={path}\n")
    site.start()
    ask(site, "/do/die")
    return site


def test_without_the_socket_for_entries_one_record_says_so_and_all_goes_through_stderr(
    machine: Machine,
) -> None:
    site = without(machine, "/run/systemd/journal/socket")
    wait_for(lambda: "| died in probation" in site.journal, "what it said")
    assert site.journal.count("journal not used") == 1
    assert "died in probation" in [line["message"] for line in logs(site, "http")]


def test_without_the_socket_for_streams_lines_come_through_the_manager_under_the_same_name(
    machine: Machine,
) -> None:
    site = without(machine, "/run/systemd/journal/stdout")
    (said,) = wait_for(lambda: entries(machine, "MESSAGE=died in probation"), "what it said")
    assert said["SYSLOG_IDENTIFIER"] == said["SOCKMGR_WORKER"]
    assert said["_PID"] == str(site.main_pid)
    site.deploy("2", fault="exits")
    assert reload_as_service_user(site)["output"] == ["cannot reach the database", "giving up"]
    assert entries(machine, f"MESSAGE_ID={EventKind.JOURNAL_STREAM_NOT_OPENED.id}")


# --- Verdicts ------------------------------------------------------------------------------------


def test_the_verdict_tells_what_the_worker_said_last_if_the_manager_may_read_it(
    machine: Machine,
) -> None:
    site = Site(machine, HTTP)
    site.install()
    site.drop_in(READER)
    site.start()
    site.deploy("2", fault="exits")
    verdict = reload_as_service_user(site)
    assert verdict["output"] == ["cannot reach the database", "giving up"]
    assert verdict["worker"] in ("http@2.1", "http@2.2")
    run_instead(site, "seq 100; printf cut; exit 3")
    assert reload_as_service_user(site)["output"] == [*map(str, range(82, 101)), "cut"]


@pytest.mark.parametrize("is_read_by", ["manager", "root"])
def test_a_line_longer_than_journald_takes_is_whole_in_the_verdict_and_marked_in_the_log(
    machine: Machine, is_read_by: str
) -> None:
    site = Site(machine, HTTP)
    site.install()
    if is_read_by == "manager":
        site.drop_in(READER)
    site.start()
    run_instead(site, "printf %0200000d 1; echo; exit 3")
    long = "0" * 199_999 + "1"
    if is_read_by == "manager":
        verdict = reload_as_service_user(site)
        assert verdict["output"] == [long]
    else:
        told = machine.run("sockmgr", "reload", "--json", "-c", site.config, check=False).stdout
        (verdict,) = json.loads(told)
        assert verdict["output"] == [long, "ended: exited with status 3"]
    lines = logs(site, "http", "-n", "1000")
    said = [line for line in lines if line["source"] == verdict["worker"]]
    begin = next(n for n, line in enumerate(said) if line["message"].startswith("0"))
    end = next(n for n, line in enumerate(said) if n >= begin and not line.get("partial"))
    assert "".join(line["message"] for line in said[begin : end + 1]) == long
    assert end - begin >= 4


def test_the_verdict_on_a_worker_that_was_not_ready_in_time_tells_what_it_said_and_what_was_seen(
    machine: Machine,
) -> None:
    site = Site(machine, HTTP, more='ready_timeout = "2s"')
    site.install()
    site.drop_in(READER)
    site.start()
    site.deploy("2", fault="stops")
    said, *seen = reload_as_service_user(site)["output"]
    assert said == "about to be stopped"
    assert seen


def test_a_verdict_says_where_to_look_if_the_manager_may_not_read_and_root_is_shown_it(
    site: Site,
) -> None:
    site.deploy("2", fault="exits")
    verdict = reload_as_service_user(site)
    where = f"journalctl --unit={SERVICE} --identifier={verdict['worker']}"
    assert verdict["output"] == [f"what it printed is in the journal: {where}"]
    words = ["cannot reach the database", "giving up", "ended: exited with status 7"]
    shown = site.machine.run(*where.split(), "-q", "-o", "cat").stdout.splitlines()
    assert shown[-3:] == words
    told = site.machine.run("sockmgr", "reload", "--json", "-c", site.config, check=False).stdout
    assert json.loads(told)[0]["output"] == words


def test_a_journald_that_hangs_holds_up_no_verdict(machine: Machine) -> None:
    site = Site(machine, HTTP)
    site.install()
    site.drop_in(READER)
    site.start()
    site.deploy("2", fault="exits")
    machine.systemctl("kill", "--signal=STOP", "systemd-journald.service")
    (where,) = reload_as_service_user(site)["output"]
    assert where.startswith("what it printed is in the journal: ")
    assert site.get()["version"] == "1"
    machine.systemctl("kill", "--signal=CONT", "systemd-journald.service")
    assert entries(machine, "MESSAGE=cannot reach the database")


# --- sockmgr logs --------------------------------------------------------------------------------


def logs(site: Site, *arguments: str) -> list[dict[str, Any]]:
    told = site.machine.run("sockmgr", "logs", "--json", "-c", site.config, *arguments).stdout
    return [json.loads(line) for line in told.splitlines()]


def test_logs_reads_back_what_the_manager_and_its_workers_wrote_and_nothing_else(
    machine: Machine,
) -> None:
    site = Site(machine, {**HTTP, "admin": "tcp://127.0.0.1:8001"})
    site.install()
    site.start()
    machine.run("logger", "-t", "http@1.1", "forged")
    ask(site, "/do/die")
    entries(machine)
    told = logs(site)
    assert {"sockmgr"} < {line["source"] for line in told} <= {"sockmgr", "http@1.1", "http@1.2"}
    assert "died in probation" in {line["message"] for line in told}
    assert "forged" not in {line["message"] for line in told}
    assert {line["service"] for line in logs(site, "http")} == {"http"}
    assert {line["source"] for line in logs(site, "admin")} == {"sockmgr"}
    assert len(logs(site, "http", "-n", "3")) == 3


def test_logs_goes_on_with_what_comes(site: Site) -> None:
    argv = site.machine.command("sockmgr", "logs", "-f", "-n", "1", "-c", site.config)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            site.deploy("2", fault="exits")
            site.machine.systemctl("reload", SERVICE, check=False)
            assert any("| giving up" in line for line in process.stdout)
            assert any("E aborted service=http" in line for line in process.stdout)
        finally:
            process.terminate()


def test_logs_needs_no_manager(site: Site) -> None:
    site.machine.systemctl("stop", SERVICE)
    assert any(line["event"] == "stopped" for line in logs(site))
    assert any(line["event"] == "stopped" for line in logs(site, "http"))


def test_logs_says_so_if_somebody_may_not_read_the_journal(site: Site) -> None:
    done = site.machine.run(
        "setpriv", "--reuid=sockmgr", "--regid=sockmgr", "--clear-groups",
        "sockmgr", "logs", "-c", site.config, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "systemd-journal" in done.stderr

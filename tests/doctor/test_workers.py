"""The doctor finds what each of these workers and managers does wrong, and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sockmgr.api.types import ListenerStatus
from sockmgr.config.config import parse
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.manager import unasked
from tests.doctor.diagnosis import Found, agreed, diagnose_under, is_free, sole
from tests.e2e.apps import ROOT, App
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.probing import READY, manager_of, probed
from tests.e2e.programs.release import Ask, Release, wait_in_log
from tests.helpers.asking import ask
from tests.helpers.command_line import sockmgr

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")
REFUSE = (sys.executable, "-m", "tests.helpers.refuse")
# It has a port of its own, and accepts there and, if it is told to, on descriptor 3.
SERVER = """
import os, select, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
own = socket.create_server(("127.0.0.1", int(sys.argv[1])))
lent = [socket.socket(fileno=3)] if sys.argv[2:] else []
while True:
    for each in select.select([own, *lent], [], [])[0]:
        each.accept()[0].close()
"""
# It accepts, and knows nothing of signals.
CARELESS = """
import socket
lent = socket.socket(fileno=3)
while True:
    lent.accept()[0].close()
"""


# Root that may not go where others' directories do not let it.
STRANGER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


class Under(Manager):
    """A manager that other commands start."""

    def __init__(self, directory: Path, config: str, *before: str) -> None:
        super().__init__(directory, config)
        self._before = before

    def _command(self, verb: str) -> Sequence[str]:
        return [*self._before, *super()._command(verb)]


def diagnose(manager: Manager, *options: str) -> Found:
    """Return what the doctor, in this process, says of a manager."""
    about = ("-c", str(manager.config), "--control", str(manager.control))
    result = sockmgr("doctor", "--json", *about, *options)
    return agreed(result.exit_code, result.stdout, result.stderr)


def soon(manager: Manager, check: Check) -> dict[str, str]:
    """Return the one finding, when it is made."""

    def made() -> Found:
        found = diagnose(manager)
        return found if any(each["check"] == check.label for each in found) else []

    return sole(wait_for(made, f"the finding {check.label}"), check)


def config_of(tmp_path: Path, program: str, *argv: str, keys: str = "") -> str:
    """Return the config of a service that runs this text."""
    path = tmp_path / "program.py"
    path.write_text(program)
    command = [sys.executable, "-S", "-E", str(path), *argv]
    return config_of_command(command, keys)


def config_of_command(command: Sequence[str], keys: str = "") -> str:
    return (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\n'
        f"command = {list(command)}\n{keys}\n[service.web.rollout]\nprobation = 0.1\n"
    )


@contextlib.contextmanager
def starting(manager: Manager) -> Iterator[Manager]:
    """Start a manager that will not serve."""
    try:
        manager.start()
        wait_for(manager.control.exists, "the control socket")
        yield manager
    finally:
        manager.close()


# --- Where nothing is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("example", ["asgi", "wsgi", "node", "plain"])
def test_an_example_that_runs_has_no_fault(tmp_path: Path, example: str) -> None:
    app = App(example, tmp_path)
    text = (app.directory / "sockmgr.toml").read_text().replace(":8000", ":0")
    keys = f'cwd = "{app.directory}"\nenv.PATH = "{BIN}:{os.environ["PATH"]}"\n'
    with Manager(tmp_path, text + keys) as manager:
        assert diagnose(manager) == []
        app.deploy("2")
        assert manager.reload().code == 0
        assert diagnose(manager) == []
        told = manager.say("doctor", "-c", str(manager.config))
        assert told.stdout.startswith("nothing found; looked at")
        assert re.search(rf"manager {manager.pid} with \d workers?$", told.stdout)


def test_workers_are_not_held_to_a_config_that_they_do_not_run_yet(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        assert ask(manager.target(), "/do/shrink")
        wait_for(lambda: manager.status()["listeners"]["http"]["backlog"] == 5, "the backlog")
        manager.config.write_text(release.config("ready_timeout = 9"))
        assert diagnose(manager) == []


def test_a_manager_of_another_config_is_said_to_be_one(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        other = tmp_path / "other.toml"
        other.write_text(manager.config.read_text().replace("service.web", "service.other"))
        told = manager.say("doctor", "-c", str(other))
        assert told.code == 0, told.stdout
        assert "runs another config" in told.stderr


def test_without_a_config_and_a_manager_the_machine_is_looked_at(config: Path) -> None:
    config.unlink()
    told = sockmgr("doctor")
    assert told.exit_code == 0
    assert told.stdout == "nothing found; looked at this machine\n"
    assert "there is no sockmgr.toml here" in told.stderr
    assert "no manager runs" in told.stderr


# --- Workers that do not get ready ---------------------------------------------------------------


def test_a_service_whose_workers_die_is_found(tmp_path: Path) -> None:
    with starting(Manager(tmp_path, Release(tmp_path, fault="exits").config())) as manager:
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "down", "a failed start")
        found = sole(diagnose(manager), Check.SERVICE_DOWN)
        assert found["what"].startswith("no worker of web serves")


def test_a_hook_that_keeps_a_first_start_waiting_is_found(tmp_path: Path) -> None:
    hook = '[service.web.hooks]\nbefore = ["sh", "-c", "echo no schema; exit 3"]\n'
    with starting(Manager(tmp_path, Release(tmp_path).config() + hook)) as manager:
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "down", "a failed hook")
        down, found = diagnose(manager)
        assert down["check"] == Check.SERVICE_DOWN.label
        assert found["check"] == Check.HOOK_FAILS.label
        assert found["what"] == "the hook before of web fails: exited with status 3"
        assert "sockmgr logs web" in found["fix"]


def test_a_new_worker_that_fails_its_probe_is_found_while_the_public_meets_the_old_ones(
    tmp_path: Path,
) -> None:
    app = probed(tmp_path)
    with manager_of(app, tmp_path, READY, 'accept = "per-worker"') as manager:
        assert diagnose(manager) == []
        app.deploy_code('VERSION = "2"\nSTATUS = 500')
        manager.run("reload", "--timeout", "1s")
        told = "probe GET /healthz on http answered 500 (expected 200)"
        wait_for(lambda: {w["probe"] for w in manager.workers()} == {"", told}, "the probes")
        found = sole(diagnose(manager), Check.PROBE_FAILS)
        assert found["what"].startswith("web@2.")
        assert found["what"].endswith(f": {told}")


def test_a_manager_that_has_no_way_to_the_workers_that_a_config_asks_is_found() -> None:
    def found(keys: str, address: str, unreachable: str) -> list[Finding]:
        text = f'[listen]\nhttp = "{address}"\n[service.web]\ncommand = ["server"]\n{keys}\n'
        listener = ListenerStatus(
            address=address, queue=0, backlog=1, cutover="steered", unreachable=unreachable
        )
        return list(unasked(parse(text.encode(), file="sockmgr.toml"), {"http": listener}))

    here, probe = "tcp://127.0.0.1:8000", 'ready = { exec = ["test"] }'
    (one,) = found(probe, here, "nobody knows their order")
    assert one.check is Check.NO_WAY_TO_WORKERS
    assert one.what.endswith("the workers of web alone on http: nobody knows their order")
    assert "sockmgr units --install" in one.fix
    assert not found("", here, "nobody knows their order")
    assert not found(probe, here, "")
    assert not found(probe, "unix:///run/web.sock", "it is a unix socket")  # else it is refused
    assert not found(f'{probe}\naccept = "dispatch"', here, "nobody knows their order")


ONLY_ONE = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))  # a pidfile
lent = socket.socket(fileno=3)
while True:
    lent.accept()[0].close()
"""


def test_a_service_that_is_degraded_for_ever_is_found(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONLY_ONE, str(tmp_path / "pidfile"), keys="workers = 2")
    with starting(Manager(tmp_path, config)) as manager:
        found = soon(manager, Check.SERVICE_DEGRADED)
        assert re.match(r"1 of 2 workers of web serve, and \d+ failed one after", found["what"])
        assert "sockmgr logs web" in found["fix"]


def test_the_worker_that_has_the_port_which_another_could_not_open_is_named(
    tmp_path: Path,
) -> None:
    port = next(number for number in range(20000, 30000) if is_free(number))
    config = config_of(tmp_path, SERVER, str(port), "and 3", keys="workers = 2")
    with starting(Manager(tmp_path, config)) as manager:
        found = wait_for(
            lambda: [o for o in diagnose(manager) if o["check"] == Check.PORT_TAKEN.label], "it"
        )

        def serving() -> list[dict[str, Any]]:
            workers = manager.status()["services"]["web"]["workers"]
            return [worker for worker in workers if worker["state"] == "ready"]

        (ready,) = wait_for(serving, "the worker that has the port")
        name = f"web@{ready['generation']}.{ready['slot']}"
        assert f"taken: {name} has port {port}" in found[0]["what"]


def test_another_process_that_has_the_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"import sys; sys.exit('listen 127.0.0.1:{port}: address already in use')"
        with starting(Manager(tmp_path, config_of(tmp_path, text))) as manager:
            found = wait_for(
                lambda: [o for o in diagnose(manager) if o["check"] == Check.PORT_TAKEN.label], "it"
            )
            assert f"(pid {os.getpid()}) has port {port}" in found[0]["what"]


COMPILES = """
raise MemoryError("Cannot allocate write+execute memory for ffi.callback().")  # as cffi does
"""


def test_workers_that_may_not_compile_are_found_and_the_verdict_says_why_too(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        manager.config.write_text(config_of(tmp_path, COMPILES))
        told = manager.say("reload")
        assert told.code == 1
        assert "MemoryDenyWriteExecute=no below [Service]" in told.stdout
    with starting(Manager(tmp_path, config_of(tmp_path, COMPILES))) as manager:
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "down", "a failed start")
        found = diagnose(manager)
        assert [one["check"] for one in found] == ["service-down", Check.CODE_REFUSED.label]
        assert "MemoryDenyWriteExecute=no" in found[1]["fix"]


def test_a_worker_that_dies_once_is_no_finding(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config("workers = 2")) as manager:
        (victim, _) = manager.status()["services"]["web"]["workers"]
        os.kill(victim["pid"], signal.SIGKILL)
        assert diagnose(manager) == []


def test_of_a_service_without_listeners_no_connection_waits(tmp_path: Path) -> None:
    config = "[service.jobs]\ncommand = ['sh', '-c', 'exit 1']\n"
    with starting(Manager(tmp_path, config)) as manager:
        wait_for(lambda: manager.status()["services"]["jobs"]["state"] == "down", "a failed start")
        assert "connection" not in sole(diagnose(manager), Check.SERVICE_DOWN)["why"]


@as_root
def test_a_service_that_is_down_in_another_pid_namespace_is_found_and_where_to_look(
    tmp_path: Path,
) -> None:
    config = Release(tmp_path, fault="exits").config()
    under = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with starting(Manager(tmp_path, config, under=under)) as manager:
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "down", "a failed start")
        sole(diagnose(manager), Check.SERVICE_DOWN)
        told = manager.say("doctor", "-c", str(manager.config))
        assert re.search(r"another PID namespace.*: nsenter -a -t \d+ sockmgr doctor", told.stderr)
        assert "as root" not in told.stderr


def test_a_worker_without_a_sign_of_readiness_is_found(tmp_path: Path) -> None:
    config = Release(tmp_path, fault="hangs").config("ready_timeout = 8")
    with starting(Manager(tmp_path, config)) as manager:
        found = soon(manager, Check.NOT_READY)
        assert found["what"] == "web@1.1: not ready after more than half of ready_timeout"
        assert "1 of 1 listener not waited on, though held open" in found["why"]


def test_a_wrapper_that_breaks_listen_pid_is_found(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SERVER)
    command = ["sh", "-c", f"{sys.executable} -S -E {program} 0 & wait"]
    with starting(Manager(tmp_path, config_of_command(command))) as manager:
        found = soon(manager, Check.WRAPPER)
        name = Path(sys.executable).name
        assert found["what"].startswith(f"web@1.1: {name} is a child of sh")
        assert "python -m sockmgr.exec" in found["fix"]


def test_a_wrapper_without_harm_is_no_fault(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SERVER)
    script = f"trap 'kill $!; wait; exit 0' TERM; {sys.executable} -S -E {program} 0 both & wait"
    keys = 'ready = { exec = ["true"] }'  # so that its readiness proves nothing
    with Manager(tmp_path, config_of_command(["sh", "-c", script], keys)) as manager:
        with socket.create_connection(manager.target().address) as client:
            assert client.recv(1) == b""  # it has been accepted
        assert diagnose(manager) == []


def test_a_server_that_listens_by_itself_instead_is_found(tmp_path: Path) -> None:
    config = config_of(tmp_path, SERVER, "0", keys="ready_timeout = 8")
    with starting(Manager(tmp_path, config)) as manager:
        found = soon(manager, Check.OWN_LISTENER)
        assert "on none of its listeners" in found["what"]
        assert found["fix"].startswith("tell the command to use the descriptor")


def test_a_second_port_of_a_worker_is_noted(tmp_path: Path) -> None:
    port = next(number for number in range(20000, 30000) if is_free(number))
    with Manager(tmp_path, config_of(tmp_path, SERVER, str(port), "both")) as manager:
        found = sole(diagnose(manager), Check.EXTRA_PORT)
        assert f"web@1.1: it also listens on tcp://127.0.0.1:{port}" in found["what"]


# --- Workers that cannot be drained --------------------------------------------------------------


def test_workers_that_ignore_term_are_found_in_one_finding(tmp_path: Path) -> None:
    config = Release(tmp_path, fault="is deaf").config("workers = 2", "drain_timeout = 0.2")
    with Manager(tmp_path, config) as manager:
        found = sole(diagnose(manager), Check.STOP_SIGNAL)
        assert re.fullmatch(r"web@1\.[12], web@1\.[12]: TERM is ignored", found["what"])
        assert found["fix"].startswith("have it accept no more on TERM")


def test_a_worker_that_term_ends_at_once_is_found(tmp_path: Path) -> None:
    with Manager(tmp_path, config_of(tmp_path, CARELESS)) as manager:
        found = sole(diagnose(manager), Check.STOP_SIGNAL)
        assert found["what"] == "web@1.1: nothing handles TERM"
        assert "with the requests in hand" in found["why"]


def test_workers_that_died_in_their_drain_are_found_later(tmp_path: Path) -> None:
    dying = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(3))\n" + CARELESS
    with Manager(tmp_path, config_of(tmp_path, dying)) as manager:
        assert manager.reload().code == 0
        wait_for(lambda: manager.status()["services"]["web"]["died"], "the end of the old worker")
        found = sole(diagnose(manager), Check.WORKERS_DIED)
        assert found["what"].startswith("1 worker of web died when told to stop")


def test_a_wrapper_that_term_ends_is_no_fault_if_the_server_behind_it_handles_term(
    tmp_path: Path,
) -> None:
    script = tmp_path / "start.sh"
    server = ROOT / "tests" / "e2e" / "programs" / "slow_server.py"
    script.write_text(f"#!/bin/sh\n{sys.executable} -S -E {server}\necho bye\n")
    script.chmod(0o755)
    config = (
        f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\ncommand = ["{script}"]\n'
        "listen_pid = false\n"
    )
    with Manager(tmp_path, config) as manager:
        assert diagnose(manager) == []


def test_the_signal_that_is_looked_at_is_the_one_that_is_sent(tmp_path: Path) -> None:
    config = Release(tmp_path).config('stop_signal = "INT"')
    with Manager(tmp_path, config) as manager:
        # Python handles INT, and its handler raises; TERM is handled by the program.
        assert diagnose(manager) == []
        config = Release(tmp_path).config('stop_signal = "QUIT"')
        manager.config.write_text(config)
        assert manager.reload().code == 0
        assert "nothing handles QUIT" in sole(diagnose(manager), Check.STOP_SIGNAL)["what"]


def test_the_signal_of_the_preset_is_looked_at(tmp_path: Path) -> None:
    program = f"import signal, sys\nsignal.signal(3, lambda *_: sys.exit(0))\n{CARELESS}"
    keys = 'preset = "unicorn"\n'  # which is stopped by QUIT
    with Manager(tmp_path, config_of(tmp_path, program, keys=keys)) as manager:
        assert diagnose(manager) == []


def test_workers_that_had_to_be_killed_are_found_later(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="is deaf")
    with Manager(tmp_path, release.config("drain_timeout = 0.2")) as manager:
        release.deploy("2")
        assert manager.reload().code == 0
        wait_for(lambda: len(manager.workers()) == 1, "the old worker to be gone")
        found = sole(diagnose(manager), Check.WORKERS_KILLED)
        assert found["what"].startswith("1 worker of web had to be killed")


# --- Listeners that workers harm -----------------------------------------------------------------


def test_a_listener_that_a_worker_shrank_is_found_until_it_is_mended(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        assert ask(manager.target(), "/do/shrink")
        found = soon(manager, Check.LISTENER_SHRUNK)
        assert "listener http lets 5 connections wait, not 4096" in found["what"]
        assert manager.reload().code == 0
        wait_for(lambda: not diagnose(manager), "the listener to be mended")


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_a_listener_that_a_worker_harmed_is_found_though_it_is_mended(
    tmp_path: Path, scheme: str
) -> None:
    address = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix://{tmp_path}/http.sock?mode=0666"
    with Manager(tmp_path, Release(tmp_path).config(address=address)) as manager:
        assert ask(manager.target(), "/do/shutdown" if scheme == "tcp" else "/do/unlink")
        if scheme == "unix":  # that has no event
            assert manager.reload().code == 0
        wait_in_log(manager, "listener repaired")
        found = sole(diagnose(manager), Check.LISTENER_HARMED)
        assert "listener http: a worker " in found["what"]
        assert found["fix"].startswith("the program must leave the listener alone")


def test_a_queue_that_is_full_is_found(tmp_path: Path) -> None:
    config = Release(tmp_path).config().replace(
        '"tcp://127.0.0.1:0"', '{ address = "tcp://127.0.0.1:0", backlog = 2 }'
    )  # fmt: skip
    with Manager(tmp_path, config) as manager, contextlib.ExitStack() as clients:
        assert ask(manager.target(), "/do/close")
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.connect(manager.target().address)
        found = sole(diagnose(manager), Check.QUEUE_FULL)
        assert "3 connections wait on listener http, which may hold 2" in found["what"]


# --- Managers ------------------------------------------------------------------------------------


def test_a_manager_that_cannot_steer_is_found(tmp_path: Path) -> None:
    with Under(tmp_path, Release(tmp_path).config(), *REFUSE, "steering") as manager:
        found = sole(diagnose(manager), Check.OVERLAP)
        assert found["what"] == "listener http cannot be steered"


def test_a_manager_that_chooses_queues_at_random_is_noted(tmp_path: Path) -> None:
    # Three workers get ready, so a reload by portions stays where both generations are fed.
    ready = 'ready = { exec = ["sh", "-c", "mkdir 1 || mkdir 2 || mkdir 3"] }'
    config = Release(tmp_path).config("workers = 2", ready, rollout=("surge = 1",))
    with Under(tmp_path, config, *REFUSE, "bpf") as manager:
        Ask(manager).hang_up()
        wait_in_log(manager, "queues chosen at random listener=http")
        assert manager.status()["listeners"]["http"]["choice"] == "random (classic BPF)"
        # Ready by another program's word, a worker may not handle TERM yet.
        found = wait_for(
            lambda: len(found := diagnose(manager)) == 1 and found, "nothing else to be found"
        )
        what = sole(found, Check.RANDOM_QUEUES)["what"]
        assert what == "the queues of listener http are chosen at random"


def test_a_manager_with_too_few_descriptors_is_found(tmp_path: Path) -> None:
    limit = ("prlimit", "--nofile=48:48")
    with Under(tmp_path, Release(tmp_path).config(), *limit) as manager:
        found = sole(diagnose(manager), Check.MANAGER_OPEN_FILES)
        assert f"the manager (pid {manager.pid}) may have 48 descriptors" in found["what"]


def test_a_manager_that_died_is_found_until_the_next_one_is_there(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        manager.kill9()
        found = sole(diagnose(manager), Check.MANAGER_GONE)
        assert found["subject"] == str(manager.control.with_suffix(".keeper"))
        manager.start()
        manager.wait_serving()
        assert diagnose(manager) == []


@as_root
def test_a_manager_of_another_user_is_said_to_be_one_and_not_gone(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    with Manager(private, Release(tmp_path).config()) as manager:
        config = tmp_path / "sockmgr.toml"
        config.write_text(manager.config.read_text())
        os.chown(private, 65534, 65534)
        private.chmod(0o700)
        found = sole(
            diagnose_under(STRANGER, config, "--control", str(manager.control)),
            Check.MANAGER_ELSEWHERE,
        )
        os.chown(private, 0, 0)
    assert found["what"] == f"a manager of user nobody listens at {manager.control}"
    assert found["fix"] == "run this as nobody"


def test_a_manager_whose_control_socket_was_removed_is_found(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        os.kill(manager.pid, signal.SIGSTOP)  # or it would make the path again
        hidden = manager.control.rename(manager.control.with_name("hidden"))
        found = sole(diagnose(manager), Check.MANAGER_UNREACHABLE)
        assert f"{manager.control} was removed" in found["what"]
        hidden.rename(manager.control)
        os.kill(manager.pid, signal.SIGCONT)
        assert diagnose(manager) == []


def test_sockets_that_systemd_passed_to_a_wrapper_are_found(tmp_path: Path) -> None:
    script = 'export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http; "$@"; exit $?'
    under = ["sh", "-c", script, "sh"]
    with Manager(tmp_path, Release(tmp_path).config(), under=under) as manager:
        found = sole(diagnose(manager), Check.SOCKETS_ASTRAY)
        assert re.match(r"systemd passed 1 socket \(http\) to process \d+ \(sh\)", found["what"])
        assert "have ExecStart= run sockmgr itself" in found["fix"]


def test_a_manager_that_does_not_answer_is_found(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        os.kill(manager.pid, signal.SIGSTOP)
        found = sole(diagnose(manager, "--timeout=0.2"), Check.MANAGER_SILENT)
        assert "did not answer in time" in found["what"]
        os.kill(manager.pid, signal.SIGCONT)


# --- Files under running workers -----------------------------------------------------------------


def test_a_release_that_was_deleted_under_its_workers_is_found(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        old = release.directory
        release.deploy("2")
        shutil.rmtree(old)
        found = sole(diagnose(manager), Check.DIRECTORY_DELETED)
        assert f"the working directory {old} was deleted" in found["what"]
        assert manager.reload().code == 0
        wait_for(lambda: len(manager.workers()) == 1, "the old worker to be gone")
        assert diagnose(manager) == []


def test_a_program_that_was_replaced_under_its_workers_is_noted(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    shutil.copy("/bin/sleep", program)
    config = f'[service.job]\ncommand = ["{program}", "1000"]\nready = {{ delay = 0 }}\n'
    with Manager(tmp_path, config) as manager:
        assert diagnose(manager) == []
        program.unlink()
        shutil.copy("/bin/sleep", program)
        found = sole(diagnose(manager), Check.PROGRAM_REPLACED)
        assert found["what"] == f"job@1.1: {program} was replaced or deleted since the start"

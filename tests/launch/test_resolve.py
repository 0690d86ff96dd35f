"""What a service of the config becomes, given the directories, programs and accounts there are."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sockmgr.config import announcement, config
from sockmgr.config.spec import Exec, Spec
from sockmgr.errors import ConfigError, SpawnError
from sockmgr.kernel.spawn import Launch, spawn
from sockmgr.launch import resolve

ROOT = os.geteuid() == 0


def spec(
    *command: str,
    listen: tuple[str, ...] = ("http=tcp://127.0.0.1:8000",),
    environ: dict[str, str] | None = None,
    **keys: object,
) -> Spec:
    """Resolve a service as `sockmgr run` would."""
    # Without the environment that may be in the directory of the tests.
    given = {"venv": "", **keys}
    parsed = config.from_arguments(listen, command or ("sleep", "9"), keys=given)
    if environ is None:
        environ = {"PATH": os.environ["PATH"]}
    return resolve.prepare(parsed.services[0], parsed.listens(), environ).spec()


def program(path: Path, text: str = "#!/bin/sh\nexit 7\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(found: Spec) -> int:
    """Run what was resolved, as a worker is; return its exit status."""
    launch = Launch(
        argv=announcement.arguments(found, 1),
        executable=found.executable,
        env=dict(found.env),
        cwd=found.cwd,
        set_listen_pid=False,
        umask=found.umask,
        limits=found.limits,
    )
    return os.waitstatus_to_exitcode(os.waitpid(spawn(launch), 0)[1])


# --- Probes ------------------------------------------------------------------------------------

UNIX = ("http=unix:///run/s",)


def probed(directory: Path, *command: str, **keys: object) -> Spec:
    """Resolve a service that is probed on a unix socket, with programs of these names."""
    for name in ("gunicorn", "uvicorn", "serve"):
        program(directory / name)
    environ = {"PATH": f"{directory}:{os.environ['PATH']}"}
    return spec(*command, listen=UNIX, environ=environ, ready={"http": "/"}, **keys)


def test_gunicorn_takes_one_more_socket_to_be_probed_by(tmp_path: Path) -> None:
    found = probed(tmp_path, "gunicorn", "a:b")
    assert found.takes_private
    assert announcement.private(found, 4) == {
        "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:sockmgr-probe",
    }  # fmt: skip
    assert not spec("sleep", "9").takes_private


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (("serve",), {}),
        (("uvicorn", "a:b"), {}),
        (("gunicorn", "--bind", "fd://{http}", "a:b"), {}),
        (("gunicorn", "a:b"), {"hang_timeout": "9s"}),
        (("serve",), {"rollout": {"warmup": ["/"]}}),
    ],
)
def test_who_is_not_known_to_take_another_socket_is_not_probed_on_a_unix_socket(
    command: tuple[str, ...], keys: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="the one socket of http, and"):
        probed(tmp_path, *command, **keys)


# --- Directory and program ---------------------------------------------------------------------


def test_the_directory_is_pinned_so_that_a_link_may_be_switched_later(tmp_path: Path) -> None:
    for release in ("1", "2"):
        program(tmp_path / release / "serve", f"#!/bin/sh\nexit {release}\n")
    current = tmp_path / "current"
    current.symlink_to("1")
    before = [
        spec("./serve", cwd=str(current)),
        spec(str(current / "serve")),
        spec("serve", cwd=str(current), environ={"PATH": "."}),
    ]
    current.unlink()
    current.symlink_to("2")
    assert [run(found) for found in before] == [1, 1, 1]
    assert before[0].cwd == str(tmp_path / "1")
    assert run(spec("./serve", cwd=str(current))) == 2


def test_python_of_a_virtual_environment_stays_the_one_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    check = f"import sys; sys.exit(3 if sys.prefix == {str(tmp_path)!r} else 4)"
    assert run(spec(str(tmp_path / "bin/python"), "-c", check)) == 3


def test_a_directory_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=rf"service\.web\.cwd = {missing}: there is no"):
        spec(cwd=missing)
    file = program(tmp_path / "file")
    with pytest.raises(ConfigError, match="is not a directory"):
        spec(cwd=str(file))


def test_a_directory_that_was_deleted_under_the_manager_is_an_error_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()
    with pytest.raises(ConfigError, match=r"service\.web\.cwd = \.: the directory .* deleted"):
        spec()


def test_the_program_is_looked_for_in_the_workers_path_not_in_ours(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "only-there")
    found = spec("only-there", env={"PATH": str(tmp_path / "bin")})
    assert found.executable == str(tmp_path / "bin" / "only-there")
    assert run(found) == 7
    with pytest.raises(SpawnError, match=r"service\.web\.command = only-there: .* not in the PATH"):
        spec("only-there")


def test_a_program_of_our_own_environment_is_found_without_activating_it(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("uvicorn")
    assert spec("uvicorn", env={"PATH": str(tmp_path)}).executable == os.path.realpath(beside)
    program(tmp_path / "uvicorn")
    found = spec("uvicorn", env={"PATH": str(tmp_path)}).executable
    assert found == str(tmp_path / "uvicorn")  # the PATH comes first


def test_a_directory_or_plain_file_in_path_does_not_hide_the_program(tmp_path: Path) -> None:
    (tmp_path / "a" / "tool").mkdir(parents=True)
    program(tmp_path / "b" / "tool").chmod(0o644)
    program(tmp_path / "c" / "tool")
    path = ":".join(str(tmp_path / name) for name in "abc")
    assert spec("tool", env={"PATH": path}).executable == str(tmp_path / "c" / "tool")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.absolute, "does not exist"),
        (lambda path: path.symlink_to("/no/such/target"), "/no/such/target, to which .* points"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text("x"), "is not executable"),
        (lambda path: program(path, "#!/no/such/python\n"), "names /no/such/python, which is not"),
        (lambda path: program(path, "#!/usr/bin/env no-such\n"), "names no-such, which is not"),
    ],
)
def test_a_program_that_cannot_be_run_is_told_before_it_is_started(
    make: Callable[[Path], object], what: str, tmp_path: Path
) -> None:
    make(tmp_path / "serve")
    with pytest.raises(SpawnError, match=what) as caught:
        spec(str(tmp_path / "serve"))
    assert caught.value.what.startswith("service.web.command = ")
    assert caught.value.do


def test_the_readiness_command_is_looked_for_as_the_command_is(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "only-there")
    program(tmp_path / "is-ready")
    found = {"env": {"PATH": str(tmp_path / "bin")}, "cwd": str(tmp_path)}
    for asks, file in (
        ("only-there", tmp_path / "bin" / "only-there"),
        ("./is-ready", tmp_path / "is-ready"),
        (str(tmp_path / "is-ready"), tmp_path / "is-ready"),
    ):
        ready = spec("/bin/sleep", ready={"exec": [asks]}, **found).ready
        assert ready == Exec(argv=(asks,), executable=str(file))
    (tmp_path / "plain").write_text("x")
    for asks, what in (
        ("nowhere", f"nowhere is not in the PATH of the workers ({tmp_path / 'bin'})"),
        ("./nowhere", f"{tmp_path / 'nowhere'} does not exist"),
        ("./plain", f"{tmp_path / 'plain'} is not executable"),
        ("./bin", f"{tmp_path / 'bin'} is a directory"),
    ):
        with pytest.raises(SpawnError) as caught:
            spec("/bin/sleep", ready={"exec": [asks, "--now"]}, **found)
        assert caught.value.what == f"service.web.ready.exec = {asks}: {what}"
        assert caught.value.do


# --- Environment -------------------------------------------------------------------------------


def test_what_systemd_meant_for_the_manager_does_not_reach_workers() -> None:
    ours = {
        "LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b", "LISTEN_PIDFDID": "9",
        "NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "FDSTORE": "8",
        "JOURNAL_STREAM": "8:1", "MAINPID": "1", "MANAGERPID": "1", "SYSTEMD_EXEC_PID": "1",
        "SOCKMGR_CONTROL": "/run/c", "SERVER_STARTER_PORT": "80=3", "EINHORN_FD_0": "3",
    }  # fmt: skip
    theirs = {"INVOCATION_ID": "x", "LISTEN_ADDR": "y", "PATH": os.environ["PATH"], "A-B": "z"}
    assert dict(spec(environ=ours | theirs).env) == {**theirs, "PYTHONUNBUFFERED": "1"}


def test_what_python_prints_is_not_kept_back_unless_somebody_wants_that() -> None:
    """It would be missing in the verdict of a worker that hangs, and is killed."""
    assert dict(spec().env)["PYTHONUNBUFFERED"] == "1"
    assert dict(spec(environ={**os.environ, "PYTHONUNBUFFERED": ""}).env)["PYTHONUNBUFFERED"] == ""
    assert dict(spec(env={"PYTHONUNBUFFERED": "0"}).env)["PYTHONUNBUFFERED"] == "0"
    without = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    assert "PYTHONUNBUFFERED" not in dict(spec(environ=without, unbuffered=False).env)


def test_env_is_added_to_what_is_inherited_and_wins() -> None:
    environ = {"PATH": os.environ["PATH"], "A": "1", "B": "2", "PYTHONUNBUFFERED": "1"}
    found = dict(spec(environ=environ, env={"B": "3", "C": "4"}).env)
    assert found == environ | {"B": "3", "C": "4"}


def test_without_inherit_env_workers_have_env_and_nothing_else() -> None:
    given = {"environ": {"SECRET": "1"}, "inherit_env": False, "env": {"A": "1"}}
    assert dict(spec("/bin/sleep", unbuffered=False, **given).env) == {"A": "1"}
    assert dict(spec("/bin/sleep", **given).env) == {"A": "1", "PYTHONUNBUFFERED": "1"}


def test_pwd_tells_the_workers_directory_or_is_not_there(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PWD": "/elsewhere"}
    assert dict(spec(environ=environ, cwd=str(tmp_path)).env)["PWD"] == str(tmp_path)
    assert "PWD" not in dict(spec(cwd=str(tmp_path)).env)


def test_a_preset_sets_a_variable_over_the_inherited_one_but_not_over_env() -> None:
    environ = {"PATH": str(Path(sys.executable).parent), "WEB_CONCURRENCY": "8"}
    inherited = spec("gunicorn", "app:app", environ=environ)
    assert dict(inherited.env)["WEB_CONCURRENCY"] == "1"
    chosen = spec("gunicorn", "app:app", environ=environ, env={"WEB_CONCURRENCY": "2"})
    assert dict(chosen.env)["WEB_CONCURRENCY"] == "2"


# --- What each worker is told ------------------------------------------------------------------


TWO = ("http=tcp://[::1]:0", "admin=unix:///run/admin.sock")
ADDRESSES = {"http": "tcp://[::1]:8000", "admin": "unix:///run/admin.sock"}


def test_a_command_that_names_no_listener_is_told_of_all_in_every_known_way() -> None:
    found = spec("sleep", "9", listen=TWO)
    assert announcement.variables(found, ADDRESSES) == {
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "http:admin",
        "EINHORN_FD_COUNT": "2",
        "EINHORN_FD_0": "3",
        "EINHORN_FD_1": "4",
        "SERVER_STARTER_PORT": "[::1]:8000=3;/run/admin.sock=4",
    }
    assert found.set_listen_pid
    assert not spec(listen=TWO, listen_pid=False).set_listen_pid


def test_a_command_that_names_a_listener_gets_its_number_and_no_variables() -> None:
    found = spec("sleep", "--a={admin}", "{http}{http}", "{{http}}", "{}", listen=TWO)
    assert announcement.arguments(found, 1) == ("sleep", "--a=4", "33", "{http}", "{}")
    assert announcement.variables(found, ADDRESSES) == {}
    assert not found.set_listen_pid


def test_a_process_without_listeners_is_told_of_none() -> None:
    found = spec("sleep", "9", listen=())
    assert announcement.variables(found, {}) == {}
    assert not found.set_listen_pid


def test_server_starter_is_told_of_no_socket_that_it_has_no_words_for() -> None:
    found = spec(listen=("a=udp://127.0.0.1:9", "b=unix-abstract:x"))
    addresses = {"a": "udp://127.0.0.1:9", "b": "unix-abstract:x"}
    assert "SERVER_STARTER_PORT" not in announcement.variables(found, addresses)


# --- Accounts, limits, policies ----------------------------------------------------------------


def test_an_account_that_is_not_known_is_named_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"service\.web\.user = no-such-user"):
        spec(user="no-such-user")
    with pytest.raises(ConfigError, match=r"service\.web\.group = no-such-group"):
        spec(group="no-such-group")


def test_ones_own_account_needs_no_privilege_and_brings_its_own_home() -> None:
    own = pwd.getpwuid(os.geteuid())
    environ = {"PATH": os.environ["PATH"], "HOME": "/elsewhere", "USER": "nobody-else"}
    env = dict(spec(user=own.pw_name, environ=environ, env={"USER": "mine"}).env)
    assert (env["HOME"], env["LOGNAME"], env["USER"]) == (own.pw_dir, own.pw_name, "mine")


@pytest.mark.skipif(not ROOT, reason="needs root, to become another user")
def test_another_user_or_a_higher_limit_is_refused_without_root() -> None:
    refused: list[str] = []
    child = os.fork()
    if child == 0:  # this process must stay root for the other tests
        try:
            os.setgid(65534)
            os.setuid(65534)
            for keys in ({"user": "root"}, {"group": "root"}, {"limits": {"nofile": "unlimited"}}):
                with contextlib.suppress(SpawnError):
                    spec("/bin/sleep", cwd="/", **keys)
                    break
                refused += keys
        finally:
            os._exit(len(refused))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_limits_and_umask_are_those_that_a_worker_gets(tmp_path: Path) -> None:
    script = program(tmp_path / "show", "#!/bin/sh\n(umask; ulimit -Sn; ulimit -Hn) > out\n")
    found = spec(str(script), cwd=str(tmp_path), umask="027", limits={"nofile": [100, "200"]})
    assert run(found) == 0
    assert (tmp_path / "out").read_text().split() == ["0027", "100", "200"]


def test_the_processors_that_are_ours_decide_unless_the_config_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sockmgr.kernel.processors.available", lambda: 6)
    assert spec().rollout.start_concurrency == 12
    assert spec(start_concurrency=7).rollout.start_concurrency == 7
    assert spec().workers == 1
    assert spec(workers="auto").workers == 6


def test_a_canary_too_large_for_the_workers_that_auto_comes_to_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {"workers": "auto", "rollout": {"surge": 1, "canary": {"share": "50%"}}}
    monkeypatch.setattr("sockmgr.kernel.processors.available", lambda: 2)
    assert spec(**keys).rollout.canary
    monkeypatch.setattr("sockmgr.kernel.processors.available", lambda: 4)
    with pytest.raises(ConfigError, match=r"web.rollout.canary would give 50 % .* to 1 of 4"):
        spec(**keys)


def test_an_end_by_the_stop_signal_is_clean_for_any_program() -> None:
    assert spec().clean_exits == {0, -15, 143}
    assert spec(stop_signal="QUIT").clean_exits == {0, -3, 131}
    assert spec(stop_signal="QUIT").stop_signal == 3


def test_a_preset_can_be_switched_off_or_named() -> None:
    environ = {"PATH": str(Path(sys.executable).parent) + ":" + os.environ["PATH"]}
    plain = spec("uvicorn", "app:app", environ=environ, preset="none")
    assert plain.argv == ("uvicorn", "app:app")
    named = spec("sleep", "app:app", environ=environ, preset="uvicorn")
    assert "--fd" in named.argv


@pytest.mark.parametrize(
    ("program", "number", "warns"),
    [("uvicorn", 1, True), ("uvicorn", 2, False), ("gunicorn", 3, True), ("nginx", 15, True),
     ("nginx", 3, False)],
)  # fmt: skip
def test_a_stop_signal_by_which_the_server_does_not_drain_is_warned_of(
    program: str, number: int, warns: bool
) -> None:
    service = config.ServiceConfig(name="web", command=(program,), stop_signal=number)
    told = resolve.prepare(service, {}, os.environ).warnings()
    assert any(each.startswith("service.web.stop_signal: told to stop") for each in told) is warns


def test_warnings_name_the_key_and_the_flag() -> None:
    parsed = config.from_arguments(
        ["http=tcp://127.0.0.1:1"], [sys.executable, "-m", "uvicorn", "--reload", "app:app"]
    )
    (text,) = resolve.prepare(parsed.services[0], parsed.listens(), os.environ).warnings()
    assert re.match(r"service\.web\.command: uvicorn --reload: ", text)


# --- Who a worker is -----------------------------------------------------------------------------


def test_a_worker_is_told_who_it_is_and_only_it_has_what_is_of_its_slot() -> None:
    env = {"A": "{slot}", "B": "{{slot}}{http}", "C": "c"}
    found = spec("sleep", "{slot}", environ={"PATH": os.environ["PATH"], "A": "outside"}, env=env)
    whole = dict(found.env)
    assert (whole["B"], whole["C"]) == ("{slot}{http}", "c")
    assert "A" not in whole
    assert announcement.who(found, 7, 2) == {
        "A": "2", "SOCKMGR_SERVICE": "web", "SOCKMGR_GENERATION": "7", "SOCKMGR_SLOT": "2",
        "SOCKMGR_WORKER": "web@7.2",
    }  # fmt: skip
    assert announcement.arguments(found, 2) == ("sleep", "2")
    assert "LISTEN_FDS" in announcement.variables(found, ADDRESSES)

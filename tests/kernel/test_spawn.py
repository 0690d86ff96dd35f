"""What a spawned program finds: descriptors, environment, identity, limits; and what errors say."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockmgr.config.values import RESOURCES
from sockmgr.errors import SpawnError
from sockmgr.kernel.open_files import close_on_exec_all
from sockmgr.kernel.spawn import Launch, chain, spawn
from tests.helpers.children import open_fds, running, wait_for_exit

REPORT = r"""
import json, os, resource
def inode(fd):
    try:
        return os.fstat(int(fd)).st_ino
    except OSError:
        return None
status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
environ = open("/proc/self/environ", "rb").read().decode("utf-8", "surrogateescape")
with os.scandir("/proc/self/fd") as names:
    fds = {int(entry.name): inode(entry.name) for entry in names}
mask = os.umask(0)
print(json.dumps({
    "pid": os.getpid(), "group": os.getpgid(0), "cwd": os.getcwd(), "umask": mask,
    "fds": {k: v for k, v in fds.items() if v is not None and not k == max(fds)},
    "stdin": os.readlink("/proc/self/fd/0"), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "env": dict(entry.split("=", 1) for entry in environ.split("\0") if entry),
    "ids": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
    "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16),
    "argv": __import__("sys").argv[1:],
}))
"""

HERE = str(Path.cwd())
SHELLS = [shell for shell in ("/bin/dash", "/bin/bash", "/bin/busybox") if Path(shell).exists()]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def reported(*args: str, python: str = sys.executable, **more: Any) -> dict[str, Any]:
    """Return what a program says of itself. -I -S: it must not read files of its user's."""
    with running([python, "-I", "-S", "-c", REPORT, *args], **more) as child:
        text = child.rest()
        assert wait_for_exit(child.process) == 0, text
        return {"spawned": child.pid, **json.loads(text)}


def inodes(*fds: int) -> list[int]:
    return [os.fstat(fd).st_ino for fd in fds]


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Five descriptors, each of something else."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(5)]
        yield [sock.fileno() for sock in sockets]


# --- Descriptors -------------------------------------------------------------------------------


@pytest.mark.parametrize("listen_pid", [False, True], ids=["direct", "by shell"])
def test_descriptors_appear_from_3_on_in_the_given_order(
    files: list[int], listen_pid: bool
) -> None:
    order = [files[3], files[0], files[4]]
    seen = reported(fds=order, set_listen_pid=listen_pid)["fds"]
    assert [seen[str(place)] for place in (3, 4, 5)] == inodes(*order)


def test_descriptors_that_stand_in_each_others_place_are_swapped(tmp_path: Path) -> None:
    # 3, 4 and 5 of the spawning process itself, rotated: a process of its own, to own those.
    program = f"""
import fcntl, os, sys
from sockmgr.kernel.spawn import Launch, spawn
for place in (3, 4, 5):
    fd = os.open(f"{tmp_path}/{{place}}", os.O_CREAT)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.dup2(high, place, False)
argv = ["sh", "-c", "for fd in 3 4 5 6 7; do readlink /proc/$$/fd/$fd; done; echo /proc/$$/fd/*"]
pid = spawn(Launch(argv=argv, executable="/bin/sh", env={{}}, cwd="/", fds=[4, 5, 3, 4, 1]))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HERE
    )
    links = done.stdout.split()
    assert [Path(link).name for link in links[:4]] == ["4", "5", "3", "4"]
    assert links[4].startswith("pipe:")
    # 8 is the shell's own, for this listing.
    assert [Path(link).name for link in links[5:]] == list("012345678")


def test_one_descriptor_can_be_given_twice(files: list[int]) -> None:
    seen = reported(fds=[files[0], files[1], files[0]])["fds"]
    assert [seen[str(place)] for place in (3, 4, 5)] == inodes(files[0], files[1], files[0])


def test_nothing_else_is_inherited(files: list[int]) -> None:
    seen = reported(fds=files[:2])["fds"]
    assert set(map(int, seen)) == {0, 1, 2, 3, 4}


def test_64_descriptors_can_be_given_in_any_order() -> None:
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(socket.socket()).fileno() for _ in range(64)]
        fds = fds[::2] + fds[1::2][::-1]
        seen = reported(fds=fds)["fds"]
        assert [seen[str(place)] for place in range(3, 67)] == inodes(*fds)


def test_a_spawn_leaves_no_descriptor_behind(files: list[int]) -> None:
    before = open_fds()
    reported(fds=files, set_listen_pid=True)
    with pytest.raises(SpawnError):
        spawn(Launch(argv=["no"], executable="/no", env={}, cwd="/", fds=files))
    assert open_fds() == before


@pytest.mark.parametrize("locale", ["POSIX", "C.UTF-8"])
def test_no_locale_keeps_a_program_from_its_arguments_and_environment(locale: str) -> None:
    """What comes from a config is UTF-8, and what was inherited has the bytes that it had."""
    script = (
        "import os, sys; from sockmgr.kernel.spawn import Launch, spawn; "
        "text = 'Gr\\u00f6\\u00dfe \\u2713'; "
        "env = {'NAME': text, 'GIVEN': os.environ['GIVEN']}; "
        "argv = ('sh', '-c', 'printenv NAME GIVEN; echo $0', text); "
        "pid = spawn(Launch(argv=argv, executable='/bin/sh', env=env, cwd='/')); "
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "GIVEN": "caf\udce9"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **env}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split(b"\n") == [
        "Größe ✓".encode(), b"caf\xe9", "Größe ✓".encode(), b""
    ]  # fmt: skip


def test_stdin_is_empty() -> None:
    assert reported()["stdin"] == "/dev/null"


def test_descriptors_inherited_by_the_manager_stop_with_it() -> None:
    reader, writer = os.pipe()
    try:
        os.set_inheritable(writer, True)
        close_on_exec_all()
        assert not os.get_inheritable(writer)
        assert os.get_inheritable(2)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_closed_descriptor_is_named_in_the_error(files: list[int]) -> None:
    gone = os.dup(files[0])
    os.close(gone)
    launch = Launch(argv=["true"], executable="/bin/true", env={}, cwd="/", fds=[files[0], gone])
    with pytest.raises(SpawnError, match=rf"descriptors \[1, 2, {files[0]}, {gone}\].*not open"):
        spawn(launch)


# --- Identity of the process -------------------------------------------------------------------


@pytest.mark.parametrize("odd", [{}, {"A-B": "1"}], ids=["by shell", "by launcher"])
def test_listen_pid_is_the_pid_that_spawn_returns(odd: dict[str, str]) -> None:
    seen = reported(set_listen_pid=True, env={"LISTEN_PID": "1", "LISTEN_FDS": "0"} | odd)
    assert seen["env"]["LISTEN_PID"] == str(seen["spawned"]) == str(seen["pid"])


def test_a_worker_leads_a_process_group_of_its_own() -> None:
    for listen_pid in (False, True):
        seen = reported(set_listen_pid=listen_pid)
        assert seen["group"] == seen["pid"]


@pytest.mark.parametrize("odd", [{}, {"A-B": "1"}], ids=["by shell", "by launcher"])
def test_signals_are_neither_ignored_nor_blocked(odd: dict[str, str]) -> None:
    # The reporter is Python, which ignores SIGPIPE (13) and SIGXFSZ (25) again; cat is not.
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        argv = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
        with running(argv, executable="/bin/grep", set_listen_pid=True, env=odd) as child:
            _, blocked, _, ignored = child.rest().split()
        assert int(blocked, 16) == 0
        # glibc's posix_spawn ignores 32 and 33, which it uses itself, in every child.
        assert int(ignored, 16) & ~(0b11 << 31) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_arguments_arrive_whatever_is_in_them() -> None:
    odd = ["", " ", "$HOME `id` $(id) \"'\\", "*", "a\nb", "-n", "--", "ü\udcff"]
    assert reported(*odd, set_listen_pid=True)["argv"] == odd


# --- Environment -------------------------------------------------------------------------------

PLAIN = {
    "PATH": "/bin",
    "EMPTY": "",
    "QUOTES": "\"'$`\\",
    "LINES": "a\nb=c",
    "_x1": "ü",
    "ENV": "x",
}
ENVIRONMENTS = {
    "plain": PLAIN,
    "empty": {},
    "of a terminal": PLAIN | {"PWD": "/else where", "OLDPWD": "/old", "SHLVL": "7", "_": "/x"},
    "no identifiers": PLAIN | {"A-B": "1", "a.b": "$x", "BASH_FUNC_f%%": "() { :; }", "PWD": "/"},
    "of the shell": PLAIN | {"IFS": "x", "OPTIND": "junk", "PPID": "3", "UID": "9", "PS4": "y"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("listen_pid", [False, True])
def test_the_environment_is_exactly_the_given_one(
    name: str, listen_pid: bool, tmp_path: Path
) -> None:
    given = ENVIRONMENTS[name]
    seen = reported(env=given, set_listen_pid=listen_pid, cwd=str(tmp_path), umask=0o22)
    added = {"LISTEN_PID": str(seen["pid"])} if listen_pid else {}
    assert seen["env"] == given | added


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_shell_hands_on_the_exact_environment(
    shell: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tmp_path / "sh"
    link.symlink_to(shell)
    monkeypatch.setattr(chain, "SHELL", str(link))
    seen = reported(env=ENVIRONMENTS[name], set_listen_pid=True, cwd=str(tmp_path))
    assert seen["env"] == ENVIRONMENTS[name] | {"LISTEN_PID": str(seen["pid"])}


def test_a_program_with_an_equals_sign_in_its_path_is_no_variable(tmp_path: Path) -> None:
    program = script(tmp_path / "a=b", "#!/bin/sh\necho $LISTEN_PID $$\n")
    with running(["x"], executable=str(program), set_listen_pid=True) as child:
        assert child.line() == f"{child.pid} {child.pid}"


def test_without_a_shell_the_launcher_does_its_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chain, "SHELL", str(tmp_path / "no shell"))
    seen = reported(env=PLAIN, set_listen_pid=True, cwd=str(tmp_path), umask=0o27)
    assert seen["env"] == PLAIN | {"LISTEN_PID": str(seen["pid"])}
    assert (seen["cwd"], seen["umask"]) == (str(tmp_path), 0o27)


def test_a_descriptor_above_the_soft_limit_of_the_program_is_handed_on_all_the_same() -> None:
    program = """
import fcntl, os, resource, sys
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.kernel.spawn import Launch, spawn
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 96))
OpenFiles.allow_all()
high = fcntl.fcntl(os.open("/etc/passwd", os.O_RDONLY), fcntl.F_DUPFD_CLOEXEC, 80)
argv = ["sh", "-c", "readlink /proc/$$/fd/3; ulimit -Sn; ulimit -Hn"]
for limits in [], [("NOFILE", 32, 48)]:
    pid = spawn(Launch(argv=argv, executable="/bin/sh", env={}, cwd="/", fds=[high], limits=limits))
    os.waitpid(pid, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HERE
    )
    assert done.stdout.split() == ["/etc/passwd", "64", "96", "/etc/passwd", "32", "48"]


# --- Directory, umask, limits, user ------------------------------------------------------------


def test_directory_and_umask_are_the_given_ones(tmp_path: Path) -> None:
    odd = tmp_path / "-P $HOME 'x'"
    odd.mkdir()
    seen = reported(cwd=str(odd), umask=0o137)
    assert (seen["cwd"], seen["umask"]) == (str(odd), 0o137)


def test_a_directory_reached_by_a_link_is_entered_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    assert reported(cwd=str(tmp_path / "current"))["cwd"] == str(tmp_path / "release")


@pytest.mark.parametrize("listen_pid", [False, True])
def test_limits_are_the_given_ones(listen_pid: bool) -> None:
    limits = [("NOFILE", 200, 300), ("CORE", 0, 0)]
    seen = reported(limits=limits, set_listen_pid=listen_pid)
    assert (seen["nofile"], seen["core"]) == ([200, 300], [0, 0])


def test_every_limit_of_ours_is_known_to_prlimit() -> None:
    limits = [
        (name, *resource.getrlimit(getattr(resource, f"RLIMIT_{name}")))
        for name in map(str.upper, RESOURCES)
    ]
    assert reported(limits=limits)["pid"]


@pytest.fixture
def groups_of_root() -> Iterator[None]:
    """Be root with supplementary groups, which a worker must not inherit."""
    before = os.getgroups()
    os.setgroups([0, 4242])
    yield
    os.setgroups(before)


@AS_ROOT
@pytest.mark.usefixtures("groups_of_root")
def test_a_user_is_taken_on_with_all_its_groups_and_nothing_of_roots() -> None:
    members = {name for group in grp.getgrall() for name in group.gr_mem} - {"root"}
    user = pwd.getpwnam(next(iter(sorted(members)), "nobody"))
    groups = sorted(os.getgrouplist(user.pw_name, user.pw_gid))
    for more in ({}, {"set_listen_pid": True, "cwd": "/tmp", "limits": [("NOFILE", 99, 99)]}):
        argv = ["sh", "-c", "id -ru; id -u; id -rg; id -g; id -G; grep CapEff /proc/$$/status"]
        with running(argv, executable="/bin/sh", user=user.pw_name, **more) as child:
            words = child.rest().split()
        assert words[:4] == [str(user.pw_uid)] * 2 + [str(user.pw_gid)] * 2
        assert sorted(map(int, words[4:-2])) == groups
        assert int(words[-1], 16) == 0


@AS_ROOT
@pytest.mark.usefixtures("groups_of_root")
def test_a_uid_without_a_name_and_a_group_of_choice_are_taken_on() -> None:
    argv = ["sh", "-c", "id -u; id -g; id -G"]
    with running(argv, executable="/bin/sh", user="54321", group="12345") as child:
        assert child.rest().split() == ["54321", "12345", "12345"]


def test_unknown_users_and_groups_are_refused_by_name() -> None:
    for more in ({"user": "no-such-user"}, {"group": "no-such-group"}):
        with pytest.raises(SpawnError, match=r"there is no .* 'no-such-"):
            spawn(Launch(argv=["x"], executable="/bin/true", env={}, cwd="/", **more))


@AS_ROOT
def test_only_root_can_start_workers_of_another_user() -> None:
    pid = os.fork()
    if pid == 0:  # a process of its own, to give up root
        code = 3
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                spawn(Launch(argv=["x"], executable="/bin/true", env={}, cwd="/", user="root"))
            except SpawnError as error:
                code = 0 if "not as root" in str(error) else 4
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@AS_ROOT
def test_a_directory_that_only_the_workers_user_may_not_enter_ends_the_start(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    argv = ["true"]
    with running(argv, executable="/bin/true", cwd=str(tmp_path), user="nobody") as child:
        assert str(tmp_path) in child.rest()
        assert wait_for_exit(child.process) != 0


# --- Errors ------------------------------------------------------------------------------------


def error_of(executable: str | Path, *, cwd: str = "/", **more: Any) -> str:
    """Return the text of the error, the same by both ways."""
    texts = set()
    for listen_pid in (False, True):
        launch = Launch(
            argv=["x"],
            executable=str(executable),
            cwd=cwd,
            set_listen_pid=listen_pid,
            **{"env": {}, **more},
        )
        with pytest.raises(SpawnError) as caught:
            spawn(launch)
        texts.add(str(caught.value))
    assert len(texts) == 1, texts
    return texts.pop()


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_command_that_does_not_exist_is_an_error_at_once(tmp_path: Path) -> None:
    assert f"command not found: {tmp_path}/no" in error_of(tmp_path / "no")
    assert "command not found" in error_of("/bin/true/no")


def test_a_directory_or_a_plain_file_is_no_command(tmp_path: Path) -> None:
    assert "it is a directory" in error_of(tmp_path)
    assert "not executable" in error_of(script(tmp_path / "plain", "", 0o644))


def test_a_fifo_is_no_command_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o755)
    assert "it is no regular file" in error_of(tmp_path / "fifo")


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    file = script(tmp_path / "run", "#!/no/such/python3 -I\n")
    assert "interpreter '/no/such/python3' does not exist" in error_of(file)
    file = script(tmp_path / "dos", "#!/bin/sh\r\ntrue\r\n")
    assert r"'/bin/sh\r'" in error_of(file)


def test_a_missing_working_directory_is_an_error_at_once(tmp_path: Path) -> None:
    assert f"working directory {tmp_path}/no: no such" in error_of(
        "/bin/true", cwd=f"{tmp_path}/no"
    )
    assert "is not a directory" in error_of("/bin/true", cwd="/bin/true")
    assert "not an absolute path" in error_of("/bin/true", cwd=".")


def test_what_is_too_long_or_cannot_be_passed_is_an_error_at_once() -> None:
    assert "too long" in error_of("/bin/true", env={"A": "x" * 5_000_000})
    assert "null byte" in error_of("/bin/true", env={"A": "x\0y"})
    assert "environment" in error_of("/bin/true", env={"A=B": "x"})


def test_a_program_without_a_format_is_refused_by_the_kernels_word(tmp_path: Path) -> None:
    file = script(tmp_path / "blob", "\x01\x02\x03\x04")
    launch = Launch(argv=["x"], executable=str(file), env={}, cwd=HERE, set_listen_pid=False)
    with pytest.raises(SpawnError, match=os.strerror(errno.ENOEXEC).lower()):
        spawn(launch)


@AS_ROOT
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_too_many_processes_is_told_as_such() -> None:
    pid = os.fork()
    if pid == 0:  # RLIMIT_NPROC does not bind root
        code = 3
        with contextlib.suppress(BaseException):
            os.setgid(54322)
            os.setuid(54322)
            resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
            try:
                spawn(Launch(argv=["x"], executable="/bin/true", env={}, cwd="/"))
            except SpawnError as error:
                code = 0 if "too many processes" in str(error) else 4
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_descriptors_beyond_the_limit_are_told_as_such(files: list[int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(files) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        launch = Launch(argv=["x"], executable="/bin/true", env={}, cwd="/", fds=files * limit)
        with pytest.raises(SpawnError, match="too many for the limit"):
            spawn(launch)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- python -m sockmgr.exec --------------------------------------------------------------------


def test_the_exec_helper_sets_listen_pid_behind_a_wrapper_that_forks(tmp_path: Path) -> None:
    wrapper = script(tmp_path / "wrap", '#!/bin/sh\n"$@" & wait $!\n')
    command = [sys.executable, "-m", "sockmgr.exec", "--", "/bin/sh", "-c", "echo $LISTEN_PID $$"]
    with running([str(wrapper), *command], cwd=HERE, set_listen_pid=True) as child:
        listen_pid, pid = child.line().split()
        assert listen_pid == pid != str(child.pid)


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        ([], 2, "no command given"),
        (["--"], 2, "no command given"),
        (["--bad", "true"], 2, "unknown option --bad"),
        (["--chdir=/no", "true"], 2, "--chdir=/no: "),
        (["--umask=9", "true"], 2, "--umask=9: "),
        (["/no/command"], 127, "cannot run /no/command: No such file"),
        (["/"], 126, "cannot run /"),
    ],
)
def test_the_exec_helper_fails_as_a_shell_does(args: list[str], status: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sockmgr.exec", *args],
        capture_output=True, text=True, check=False, cwd=HERE,
    )  # fmt: skip
    assert done.returncode == status
    assert text in done.stderr


def test_the_exec_helper_finds_a_command_by_its_path() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sockmgr.exec", "--umask=077", "sh", "-c", "umask"],
        capture_output=True, text=True, check=True, cwd=HERE,
    )  # fmt: skip
    assert int(done.stdout, 8) == 0o077

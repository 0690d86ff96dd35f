"""`sockmgr check`: whether a config can be used, and what it would change in a manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sockmgr.api.types import Change, Effect, Kind, Plan
from sockmgr.api.varlink import LONGEST_CALL
from sockmgr.errors import ControlError
from sockmgr.launch.access import Access
from tests.helpers.command_line import CONFIG, manager, on_terminal, path, sockmgr
from tests.helpers.fake_manager import FakeManager

__all__ = ["manager", "path"]  # fixtures

ROLLING = Change(
    kind=Kind.CHANGE, path="service.web.command", effect=Effect.RELOAD, old='["a"]', new='["b"]',
    text='! service.web.command ["a"] → ["b"]: rolling reload',
)  # fmt: skip
GONE = Change(
    kind=Kind.REMOVE, path="listen.admin", effect=Effect.LISTENER, old="unix:///run/a",
    text="- listen.admin unix:///run/a: closed when nothing waits there any more",
)  # fmt: skip


@pytest.fixture
def config(path: Path) -> Path:
    found = path.with_name("sockmgr.toml")
    found.write_text(CONFIG)
    return found


def test_check_shows_each_change_on_a_line_of_its_own(manager: FakeManager, config: Path) -> None:
    result = sockmgr("check")
    assert (result.exit_code, result.stdout) == (
        0,
        "sockmgr.toml is valid: 1 listener, 1 service\n"
        "  ~ service.web.workers 4 → 6: needs no new workers\n"
        "  + service.job: 1 worker started\n",
    )
    assert manager.planned == [(CONFIG, str(config))]


@pytest.mark.usefixtures("config")
def test_check_says_that_a_reload_starts_new_workers_whatever_changes(manager: FakeManager) -> None:
    told = sockmgr("check").stderr
    assert told.startswith('2 changes, none of which needs new workers; "sockmgr reload" takes')
    assert "starts new workers in any case" in told
    manager.answer = Plan(changes=(ROLLING,), applies=True)
    assert sockmgr("check").stderr.startswith('1 change; "sockmgr reload"')


@pytest.mark.usefixtures("config")
def test_check_says_when_nothing_would_change(manager: FakeManager) -> None:
    manager.answer = Plan(changes=(), applies=True)
    result = sockmgr("check")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == "nothing would change: this is the config that runs\n"


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("changes", [(), (ROLLING,)])
def test_check_says_when_the_manager_reads_another_config(
    manager: FakeManager, changes: tuple[Change, ...]
) -> None:
    manager.answer = Plan(changes=changes, applies=False)
    told = sockmgr("check").stderr
    assert told.endswith("reads another config, so a reload does not take this one over\n")
    assert "sockmgr reload" not in told


@pytest.mark.usefixtures("config")
def test_check_answers_in_json_with_each_change_taken_apart(
    manager: FakeManager, path: Path
) -> None:
    told = json.loads(sockmgr("check", "--json").stdout)
    assert told == {
        "valid": True, "config": "sockmgr.toml", "warnings": [], "notes": [],
        "manager": str(path),
        "applies": True, "changes": json.loads(msgspec.json.encode(manager.answer.changes)),
    }  # fmt: skip
    assert told["changes"][0] == {
        "kind": "change", "path": "service.web.workers", "effect": "scale", "old": "4", "new": "6",
        "text": "~ service.web.workers 4 → 6: needs no new workers",
    }  # fmt: skip


@pytest.mark.usefixtures("path")
def test_check_names_what_loses_requests(config: Path) -> None:
    uvicorn = Path(sys.executable).with_name("uvicorn")
    config.write_text(
        CONFIG.replace('"true"', f'"{uvicorn}", "--reload", "app:app"').replace(', "{http}"', "")
    )
    assert "  warning: service.web.command: uvicorn --reload" in sockmgr("check").stdout
    assert "--reload" in json.loads(sockmgr("check", "--json").stdout)["warnings"][0]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ('["sleep"]', "descriptor 3, told by LISTEN_FDS and LISTEN_PID."),
        ('["env", "-u", "X", "sh", "-c", "exec sleep"]', "command: sleep is not a server"),
        ('["setsid", "-w", "sleep"]', "without LISTEN_PID (setsid gives it another pid)"),
        ('["sleep"]\nlisten_pid = false', "told by LISTEN_FDS without LISTEN_PID."),
    ],
)
def test_check_says_how_a_program_that_it_does_not_know_gets_its_socket(
    config: Path, command: str, words: str
) -> None:
    config.write_text(CONFIG.replace('["true", "{http}"]', command))
    (line,) = [one for one in sockmgr("check").stdout.splitlines() if one.startswith("  note: ")]
    assert words in line
    assert line.endswith("name the descriptor in the command, {http}")
    assert len(json.loads(sockmgr("check", "--json").stdout)["notes"]) == 1


@pytest.mark.usefixtures("path")
def test_check_warns_of_what_gets_no_socket_at_all_and_notes_nothing_else(config: Path) -> None:
    config.write_text(CONFIG.replace('["true", "{http}"]', '["setsid", "true"]'))
    told = json.loads(sockmgr("check", "--json").stdout)
    assert (len(told["warnings"]), told["notes"]) == (1, [])
    assert told["warnings"][0].startswith("service.web.command: setsid: it ends at once")


@pytest.mark.usefixtures("path")
def test_check_says_what_readiness_is_worth_that_nothing_shows(config: Path) -> None:
    job = '[service.web]\ncommand = ["true"]\n'
    config.write_text(job)
    assert "is a guess: it counts as ready after 1 s, and if it ends within 10 s more" in (
        sockmgr("check").stdout
    )
    config.write_text(f'{job}ready = "notify"\n')
    assert "note" not in sockmgr("check").stdout


_OWN = {
    "pidfile": ("gunicorn", "gunicorn.conf.py", "n = 1\npidfile = '/run/x'"),
    "daemon": ("gunicorn", "gunicorn.conf.py", "import os\ndaemon = True\nworkers = 1"),
    "workers": ("gunicorn", "gunicorn.conf.py", "n = 2\nworkers = n * 2 + 1"),
    "bind": ("gunicorn", "conf.py", "bind = '0.0.0.0:80'\npidfile = None\ndaemon = False"),
    "stats": ("uwsgi", "app.ini", "[uwsgi]\nmaster = true\nstats = 127.0.0.1:9191"),
    "daemonize": ("uwsgi", "app.ini", "[uwsgi]\n  daemonize=/var/log/x\nprocesses = 1"),
}


@pytest.mark.parametrize("setting", _OWN)
def test_check_names_what_a_servers_own_config_file_says_that_is_the_managers(
    config: Path, setting: str
) -> None:
    server, name, text = _OWN[setting]
    config.with_name(name).write_text(text)
    option = {"conf.py": '"-c", "conf.py", ', "app.ini": '"--ini", "app.ini", '}.get(name, "")
    program = Path(sys.executable).with_name(server)
    command = f'command = ["nice", "{program}", {option}"app:app"]'
    config.write_text(CONFIG.replace('command = ["true", "{http}"]', command))
    (flaw,) = json.loads(sockmgr("check", "--json").stdout)["warnings"]
    assert flaw.startswith(f"service.web.command: {server} {setting} in {name}: ")


def test_check_names_no_number_of_processes_that_the_command_overrules(config: Path) -> None:
    config.with_name("gunicorn.conf.py").write_text("workers = 4\n")
    command = json.dumps([str(Path(sys.executable).with_name("gunicorn")), "-w", "1", "app:app"])
    config.write_text(CONFIG.replace('["true", "{http}"]', command))
    assert json.loads(sockmgr("check", "--json").stdout)["warnings"] == []


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    "command", ["gunicorn --pid=/run/x", "gunicorn -D", "uwsgi --stats :1", "uwsgi --daemonize x"]
)
def test_check_names_the_same_on_the_command_line(config: Path, command: str) -> None:
    server, flag, *_ = command.split()
    words = [str(Path(sys.executable).with_name(server)), *command.split()[1:], "app:app"]
    config.write_text(CONFIG.replace('["true", "{http}"]', json.dumps(words)))
    (flaw,) = json.loads(sockmgr("check", "--json").stdout)["warnings"]
    assert flaw.startswith(f"service.web.command: {server} {flag.partition('=')[0]}: ")


@pytest.mark.parametrize("which", ["sockmgr.toml", "gunicorn.conf.py"])
def test_check_waits_for_no_fifo(config: Path, which: str) -> None:
    program = Path(sys.executable).with_name("gunicorn")
    command = f'command = ["{program}", "app:app"]'
    config.write_text(CONFIG.replace('command = ["true", "{http}"]', command))
    config.with_name(which).unlink(missing_ok=True)
    os.mkfifo(config.with_name(which))
    result = sockmgr("check")
    if which == "sockmgr.toml":
        assert result.exit_code == 2
        assert "cannot read sockmgr.toml: it is no regular file" in result.stderr
    else:
        assert result.exit_code == 0


def test_check_reads_what_a_shell_hands_it_as_a_descriptor(config: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m sockmgr check -c <(cat {config})"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "is valid: 1 listener" in done.stdout) == (0, True), done.stderr


@pytest.mark.usefixtures("config")
def test_check_without_a_manager_says_so_and_judges_the_config_all_the_same() -> None:
    result = sockmgr("check")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == (
        'no manager named "shop-of-a-test" is running: nothing to compare with\n'
    )
    told = json.loads(sockmgr("check", "--json").stdout)
    assert (told["valid"], told["manager"], told["changes"]) == (True, None, None)


@pytest.mark.usefixtures("config")
def test_a_manager_that_ends_after_it_has_told_its_plan_is_none_to_compare_with(
    manager: FakeManager, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(text: str, file: str) -> Plan:
        path.unlink()
        return FakeManager.plan(manager, text, file)

    monkeypatch.setattr(manager, "plan", plan)
    result = sockmgr("check")
    assert (result.exit_code, len(manager.planned)) == (0, 1)
    assert "is valid" in result.stdout
    assert "nothing to compare with" in result.stderr


@pytest.mark.usefixtures("config")
def test_a_manager_that_was_named_and_is_not_there_is_exit_code_3(tmp_path: Path) -> None:
    result = sockmgr("check", "--control", str(tmp_path / "nobody.sock"))
    assert result.exit_code == 3
    assert "is valid" in result.stdout
    assert "no manager answers" in result.stderr


@pytest.mark.usefixtures("config")
def test_a_manager_that_does_not_answer_the_question_decides_the_exit_code(
    manager: FakeManager,
) -> None:
    manager.error = ControlError("no", do="wait")
    result = sockmgr("check")
    assert result.exit_code == 1
    assert "is valid" in result.stdout


@pytest.mark.usefixtures("config")
def test_check_says_that_the_manager_does_not_tell_this_user_what_would_change(
    manager: FakeManager, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Access(readers=os.getgid())
    may_call = Access.may_call
    monkeypatch.setattr(
        Access, "may_call", lambda _, method, *__: may_call(reads, method, -1, {os.getgid()})
    )
    result = sockmgr("check")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"what would change is not known: the manager at {path} does")
    told = json.loads(sockmgr("check", "--json").stdout)
    assert (told["valid"], told["manager"], told["changes"]) == (True, str(path), None)
    assert manager.planned == []


def test_a_config_too_long_for_the_manager_is_not_sent(manager: FakeManager, config: Path) -> None:
    config.write_text(CONFIG + "# long\n" * (LONGEST_CALL // 7))
    result = sockmgr("check")
    assert result.exit_code == 1
    assert "more than the manager" in result.stderr
    assert manager.planned == []


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    "text",
    [
        "what is this",
        "[service.web]\n",
        CONFIG.replace("listen = ", "lisen = "),
        CONFIG.replace('"true"', '"no-such-program-of-a-test"'),
        CONFIG + 'cwd = "/no/such/directory"\n',
    ],
)
def test_a_config_that_cannot_be_used_is_exit_code_2(config: Path, text: str) -> None:
    config.write_text(text)
    result = sockmgr("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    result = sockmgr("check", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["valid"]) == (2, False)
    assert result.stderr.startswith(f"error: {told['error']['what']}")


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ('command = ["nowhere"]', "5:11: service.web.command = nowhere"),
        ('command = ["true"]\n\nhooks.before = ["./x"]', "7:16: service.web.hooks.before = ./x"),
        ('command = ["true"]\n[service.web.hooks]\nready = ["./x"]', "7:9: service.web.hooks.rea"),
        ('command = ["true"]\ncwd = "gone"', "6:7: service.web.cwd = "),
        ('command = ["true"]\nuser = "nobody-here"', "6:8: service.web.user = "),
        ('command = ["true"]\nready = { exec = ["./x"] }', "6:18: service.web.ready.exec = "),
        ('app = "shop:app"\npython = "./x"', "6:10: service.web.python = ./x"),
        ('app = "shop:app"\n[service.web.http]\ncertfile = "x"', "6:1: service.web.http: "),
        ('command = ["true"]\nafter = ["x"]', "6:10: service.web.after[0] = "),
        ('command = ["true"]\n[control]\nreaders = "no-such"', "7:11: control.readers = no-such"),
    ],
)
def test_what_cannot_be_started_here_is_refused_with_its_place(
    config: Path, lines: str, place: str
) -> None:
    config.write_text(f'name = "shop"\n[listen]\nhttp = "unix:///run/x"\n[service.web]\n{lines}\n')
    result = sockmgr("check")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: sockmgr.toml:{place}")


@pytest.mark.usefixtures("config")
def test_only_a_terminal_gets_colours_one_for_each_mark(manager: FakeManager) -> None:
    manager.answer = Plan(changes=(*manager.answer.changes, ROLLING, GONE), applies=True)
    shown = on_terminal("check", NO_COLOR="")
    for colour, mark in (("36", "~"), ("32", "+"), ("93", "!"), ("31", "-")):
        assert f"\x1b[{colour}m  {mark} " in shown
    for plain in (on_terminal("check", NO_COLOR="1"), on_terminal("check", TERM="dumb")):
        assert "\x1b" not in plain
        assert "! service.web.command" in plain
    assert "\x1b" not in sockmgr("check").stdout

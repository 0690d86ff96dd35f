"""Configs of other managers and servers are carried over; what is not is said, line by line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.config import config
from sockmgr.config.config import Config
from sockmgr.errors import SockmgrError
from sockmgr.init.facts import Project
from sockmgr.init.foreign import readers, services
from sockmgr.init.foreign.form import Source
from tests.helpers.pages import ROOT, TOML
from tests.init.sources import FASTAPI

FILES = sorted(
    path for path in Path(__file__).with_name("foreign").glob("*/*") if path.suffix != ".toml"
)
NAMES = {
    "supervisord": "supervisord.conf", "circus": "circus.ini", "systemd": "web.service",
    "pm2": "ecosystem.config.js", "procfile": "Procfile", "gunicorn": "gunicorn.conf.py",
    "uwsgi": "uwsgi.ini", "unit": "unit.json",
}  # fmt: skip
PROGRAMS = frozenset({"gunicorn", "uvicorn", "uwsgi", "node"})


def carried(name: str, text: str, files: dict[str, str] | None = None) -> str:
    """Return the config for a file of another manager, in the directory /srv/shop."""
    project = Project(directory="shop", files=files or {}, programs=PROGRAMS, root="/srv/shop")
    found = readers.read(Source(name, text, project))
    return services.text(found, project, name, "shop")


def parsed(name: str, text: str, files: dict[str, str] | None = None) -> Config:
    return config.parse(carried(name, text, files).encode(), file="sockmgr.toml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_real_looking_file_becomes_the_config_beside_it(path: Path) -> None:
    text = carried(path.name, path.read_text())
    assert text == path.with_name(f"{path.name}.toml").read_text()
    assert config.parse(text.encode(), file="sockmgr.toml").services


@pytest.mark.parametrize("kind", NAMES)
def test_there_are_three_files_of_each_kind_and_a_page_that_shows_one(kind: str) -> None:
    paths = [path for path in FILES if path.parent.name == kind]
    assert len(paths) >= 3
    page = (ROOT / "docs" / "from" / f"{kind}.md").read_text()
    shown = [
        path for path in paths if f"```\n{path.read_text()}```" in re.sub("```\\w+", "```", page)
    ]
    (made,) = TOML.findall(page)
    assert [made in path.with_name(f"{path.name}.toml").read_text() for path in shown] == [True]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_line_of_a_file_is_carried_over_or_named(path: Path) -> None:
    """A setting that is in neither the config nor the list of lines would be lost in silence."""
    text = path.read_text()
    project = Project(directory="shop", files={}, programs=PROGRAMS, root="/srv/shop")
    found = readers.read(Source(path.name, text, project))
    lines = text.split("\n")
    for setting, why in found.left:
        assert why
        assert setting.name.rpartition("_")[2].lower() in lines[setting.line - 1].lower()


def test_the_number_of_a_process_of_supervisord_is_that_of_the_slot() -> None:
    (found,) = parsed(
        "supervisord.conf",
        "[program:a]\ncommand=sh -c 'run --data /d/%(process_num)02d/{x}'\nnumprocs=3\n"
        'environment=N="%(process_num)d",B="{b}"\nstdout_logfile=/l/%(process_num)d\n',
    ).services
    assert found.command[-1] == "/d/{slot}/{{x}}"
    assert (found.workers, dict(found.env)) == (3, {"N": "{slot}", "B": "{b}"})


def test_what_a_procfile_ran_with_is_taken_in_where_it_is() -> None:
    found = carried("deploy/Procfile", "web: gunicorn a:b --bind 0.0.0.0:$PORT\nx: run $PORT\n")
    assert 'env_file = "deploy/.env?"' in found
    assert 'web = "tcp://0.0.0.0:${PORT:-8000}"' in found
    assert found.count("${PORT") == 1


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("ecosystem.config.js", "script: 'a.js', max_memory_restart: '1g'", 1 << 30),
        ("ecosystem.config.js", "script: 'a.js', max_memory_restart: 1048576", 1 << 20),
        ("ecosystem.config.js", "script: 'a.js', max_memory_restart: 'much'", None),
        ("uwsgi.ini", "[uwsgi]\nmodule = a:b\nreload-on-rss = 256", 256 << 20),
    ],
)
def test_a_limit_of_memory_is_carried_over(name: str, text: str, wanted: int | None) -> None:
    whole = text if "[" in text else f"module.exports = {{ apps: [{{ {text} }}] }}"
    (found,) = parsed(name, whole).services
    assert found.max_rss == wanted


def test_a_program_of_supervisord_has_what_all_of_them_have() -> None:
    found = parsed(
        "supervisord.conf",
        "[program:a]\ncommand=a\nenvironment=A=\"1\"\n[supervisord]\nenvironment=A=0,B='2, 3'\n",
    )
    assert dict(found.services[0].env) == {"A": "1", "B": "2, 3"}


def test_two_services_do_not_get_one_address() -> None:
    text = carried("Procfile", "web: gunicorn a:b -b :8000\nadmin: gunicorn c:d -b :8000\n")
    assert 'web = "tcp://0.0.0.0:8000"\nadmin = "tcp://0.0.0.0:8001"\n' in text
    assert "TO DO: another service has tcp://0.0.0.0:8000: choose the port of this one." in text


def test_names_become_such_as_a_config_can_have() -> None:
    names = ("a b", "a/b", "1", "ä", "", "x" * 99)
    text = "".join(f"[program:{name}]\ncommand=gunicorn a:b\n" for name in names)
    found = parsed("supervisord.conf", text)
    assert [one.name for one in found.services] == [
        "a-b", "a-b-2", "service-1", "service", "service-2", "x" * 48,
    ]  # fmt: skip


def test_what_the_config_could_not_have_is_left_with_its_line() -> None:
    text = carried(
        "supervisord.conf",
        "[program:a]\ncommand=a\nnumprocs=many\numask=999\nstopsignal=KILL\nuser=a b\n"
        "stopwaitsecs=1e99\ndirectory=/srv/shop\n",
    )
    for line, setting in ((3, "numprocs"), (4, "umask"), (5, "stopsignal"), (6, "user")):
        assert f"\n# {line}: {setting} = " in text
    (service,) = config.parse(text.encode(), file="x").services
    assert (service.workers, service.umask, service.user, service.cwd) == (1, None, "", ".")


def test_variables_are_not_shown_among_what_was_left() -> None:
    text = 'module.exports = {apps: [{script: "a.js", env: {A: "s3cret", B: process.env.B}}]}'
    written = carried("ecosystem.config.js", text)
    assert "s3cret" not in written.partition("Not carried over")[2]
    assert "B: it is computed there" in written


def test_an_expression_that_cannot_be_written_again_is_left_with_its_line() -> None:
    text = carried("gunicorn.conf.py", "bind = f\"0:{g('\x7f')}\"\n", {"main.py": FASTAPI})
    assert "\n# 1: bind = " in text


def test_an_application_that_a_gunicorn_conf_does_not_name_is_looked_for() -> None:
    service = parsed("gunicorn.conf.py", "workers = 2\n", {"main.py": FASTAPI}).services[0]
    assert service.command[-1] == "main:app"


def test_a_file_of_uwsgi_keeps_the_protocol_of_its_proxy() -> None:
    (spoken,) = parsed("uwsgi.ini", "[uwsgi]\nsocket = :3031\nmodule = a\n").services
    assert spoken.command == ("uwsgi", "--protocol", "uwsgi", "--module=a")
    (http,) = parsed("uwsgi.ini", "[uwsgi]\nhttp = :3031\nmodule = a\n").services
    assert http.command == ("uwsgi", "--module=a")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("notes.txt", "hello", "no process that sockmgr could run"),
        ("Procfile", "", "no process"),
        ("supervisord.conf", "[supervisord]\n", "no process"),
        ("supervisord.conf", "[program:a]\nuser=x\n", "has no service"),
        ("gunicorn.conf.py", "bind = (", "gunicorn.conf.py:1: this cannot be read"),
        ("ecosystem.config.js", "module.exports = {apps: []}", "no process"),
        ("ecosystem.config.js", "\nmodule.exports = f({apps: x => 1})", ":2: this cannot be read"),
        ("unit.json", '{"listeners": [1], "applications": {"a": 7}}', "no process"),
        ("x.service", "[Service]\nUser=x\n", "no process"),
    ],
)
def test_a_file_that_says_nothing_is_refused_with_its_line(name: str, text: str, said: str) -> None:
    with pytest.raises(SockmgrError, match=re.escape(said)):
        carried(name, text)


HOSTILE = (
    "{" * 100_000, "[" * 100_000, "module.exports={apps:[{name:" + '"\\' * 50_000,
    "module.exports={apps:" + "/*" * 50_000, "[program:x]\ncommand=" + "$(" * 50_000,
    "[uwsgi]\n" + "socket=:80\n" * 9000, "[watcher:x]\ncmd=a\n[env:" + "a," * 50_000 + "]\nb=1",
    "[Service]\nExecStart=" + "\\\n" * 60_000, "web: " + "a " * 60_000, "a=" * 50_000 + "1",
    "[program:x]\ncommand=a\nstopwaitsecs=" + "1" * 100_000, "x = " + "-" * 100_000 + "1",
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
@pytest.mark.parametrize("kind", NAMES)
def test_a_file_that_was_made_to_harm_is_carried_over_or_refused(kind: str, number: int) -> None:
    with suppress(SockmgrError):
        parsed(NAMES[kind], HOSTILE[number])


SNIPPETS = sorted({
    piece for path in FILES for piece in re.split(r"(?<=[\n,{}\[\]=:])", path.read_text())
})  # fmt: skip


@given(kind=st.sampled_from([*NAMES]), pieces=st.lists(st.sampled_from(SNIPPETS), max_size=30))
def test_pieces_of_files_in_any_order_are_a_config_or_an_error(
    kind: str, pieces: list[str]
) -> None:
    with suppress(SockmgrError):
        parsed(NAMES[kind], "".join(pieces))


@given(
    kind=st.sampled_from([*NAMES]), text=st.text(), at=st.integers(0, 2000), which=st.integers(0, 2)
)
def test_a_file_with_anything_in_its_middle_is_a_config_or_an_error(
    kind: str, text: str, at: int, which: int
) -> None:
    path = [path for path in FILES if path.parent.name == kind][which]
    whole = path.read_text()
    with suppress(SockmgrError):
        parsed(NAMES[kind], whole[:at] + text + whole[at:])

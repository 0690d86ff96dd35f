"""`${NAME}` in a config: what it stands for, and what is said when it stands for nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from sockmgr.config import outside
from sockmgr.config.config import Config, ServiceConfig, from_arguments, name, parse
from sockmgr.config.document import Filled
from sockmgr.config.outside import Outside
from sockmgr.config.schema import schema
from sockmgr.errors import ConfigError

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra: test)")

FULL = """\
name = "shop"
stop_delay = "${DELAY}"
[listen]
http = { address = "unix://${RUN}/s", mode = "0${MODE}", backlog = "${N}" }
tcp = "${ADDRESS}"
[service.web]
command = ["${PROGRAM}", "--x=${A}${B:-}", "{http}", "$$ $A $${A}", "${B:-b c}"]
workers = "${N}"
cwd = "${RUN}/current"
env = { A = "<${A}>" }
inherit_env = "${NO}"
limits = { nofile = "${N}K", core = ["${N}", "${UNLIMITED}"] }
drain_timeout = "${DELAY}s"
ready_timeout = "${N}"
rollout = { probation = "${SHORT}", surge = "${N}" }
"""
ENVIRON = {
    "DELAY": "1.5", "RUN": "/run/shop", "MODE": "660", "N": "7", "ADDRESS": "tcp://[::1]:80",
    "PROGRAM": "./serve", "A": "a ${N}", "B": "", "NO": "false", "UNLIMITED": "unlimited",
    "SHORT": "0.5",
}  # fmt: skip


def read(text: str, environ: dict[str, str], files: dict[str, bytes] | None = None) -> Config:
    def content(path: str) -> bytes:
        if path not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory")
        return (files or {})[path]

    given = Outside(environ, content)
    return parse(text.encode(), file="/srv/shop.toml", outside=given)


def service(text: str, **environ: str) -> ServiceConfig:
    (found,) = read(f'[service.web]\ncommand = ["server"]\n{text}\n', environ).services
    return found


def exactly(value: Any) -> None:
    """See that no text of a config is of a kind of its own, which would not be written as one."""
    if isinstance(value, tuple):
        for each in value:
            exactly(each)
    elif isinstance(value, str):
        assert not isinstance(value, Filled)


def test_variables_stand_in_addresses_commands_paths_and_numbers() -> None:
    found = read(FULL, ENVIRON)
    (web,) = found.services
    http, tcp = found.listen
    assert (str(http.address), http.mode, http.backlog) == ("unix:///run/shop/s", 0o660, 7)
    assert str(tcp.address) == "tcp://[::1]:80"
    assert web.command == ("./serve", "--x=a ${N}", "{http}", "$$ $A ${A}", "b c")
    assert (web.workers, web.cwd, web.env) == (7, "/run/shop/current", (("A", "<a ${N}>"),))
    assert (web.inherit_env, web.drain_timeout, web.ready_timeout) == (False, 1.5, 7.0)
    assert web.limits == (("core", 7, -1), ("nofile", 7 << 10, 7 << 10))
    assert (web.rollout.probation, web.rollout.surge.amount, found.stop_delay) == (0.5, 7, 1.5)
    assert ("service.web.command.1", "A") in found.variables
    assert ("listen.http.mode", "MODE") in found.variables
    for struct in (found, web, *found.listen):
        for field in struct.__struct_fields__:
            exactly(getattr(struct, field))
    validator = jsonschema.Draft202012Validator(schema())
    assert not list(validator.iter_errors(tomli.loads(FULL)))


def test_a_file_counts_more_than_the_environment_and_that_of_a_service_in_its_table_only() -> None:
    text = """
env_file = "${DIR}/all"
[listen]
http = "tcp://h:${PORT}"
[service.web]
env_file = "${NAME}"
command = ["${WHO}", "${PORT}"]
[service.job]
command = ["${WHO}", "${PORT}"]
listen = []
""".replace("[service.web]\n", '[service.web]\nlisten = ["http"]\n')
    environ = {"DIR": "/etc", "PORT": "1", "WHO": "environ"}
    files = {"/etc/all": b"PORT=2\nNAME=web.env", "/srv/web.env": b"WHO=web"}
    found = read(text, environ, files)
    assert str(found.listen[0].address) == "tcp://h:2"
    assert [one.command for one in found.services] == [("web", "2"), ("environ", "2")]


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("workers = '${SECRET}'", "3:11", 'workers = "\\${SECRET}" cannot be used.*whole number'),
        ("workers = '${BIG}'", "3:11", 'workers = "\\${BIG}" cannot be used.*from 1 to'),
        ("max_age = '${SECRET}'", "3:11", 'max_age = "\\${SECRET}" cannot be used.*a duration'),
        ("inherit_env = '${SECRET}'", "3:15", "true or false"),
        ("limits.core = [9, '${N}']", "3:15", r'\[9, "\$\{N\}"\] cannot be used'),
        ("umask = '${SECRET}'", "3:9", "octal"),
        ("env = { A = '${UNSET}' }", "3:9", "env.A names the variable UNSET, which is not set"),
        ("cwd = '${UNSET}/x'", "3:1", r"cwd names the variable UNSET, .*\$\{UNSET:-DEFAULT\}"),
        ("cwd = '${A:-${UNSET}}'", "3:1", r"cwd has a \$\{ that begins no name"),
        ("cwd = '${A'", "3:1", r"cwd has a \$\{ that begins no name.*\$\$\{"),
        ("cwd = '${A:?no}'", "3:1", "begins no name"),
        ("cwd = '${1}'", "3:1", "begins no name"),
        ("hooks.before = ['sh', '-c', 'echo ${A%x}']", "3:29", r"before\[2\] has a \$\{"),
        ("listen = ['${SECRET}']", "3:11", r'listen\[0\] = "\$\{SECRET\}" cannot be used'),
        ("after = ['${SECRET}']", "3:10", r'after\[0\] = "\$\{SECRET\}" cannot be used'),
        ("workers = '${DEEP}'", "3:11", 'workers = "\\${DEEP}" cannot be used'),
        ("env_file = '/run/${SECRET}'", "3:1", r"env_file names /run/\$\{SECRET\}, which cannot"),
        ("ready = { exec = ['${UNSET}'] }", "3:19", r"exec\[0\] names the variable UNSET"),
    ],
)
def test_what_stands_for_nothing_usable_is_told_as_it_is_written(
    line: str, place: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        service(line, SECRET="s3cret", BIG="123456789", N="4", A="s3cret", DEEP="[" * 99999)
    assert re.search(words, str(caught.value), re.DOTALL), str(caught.value)
    assert caught.value.what.startswith(f"/srv/shop.toml:{place}: "), caught.value.what
    assert not re.search("s3cret|123456789", str(caught.value))
    assert caught.value.do


@pytest.mark.parametrize(
    ("text", "value", "words"),
    [
        ("[service.web]\ncommand = ['${A}']", "s3cret{http}", 'command[0] = "${A}"'),
        ("[service.web]\ncommand = ['${A}']", "{s3cret}", 'command[0] = "${A}"'),
        ("[listen]\nx = '${A}'", "tcp://[s3cret]:1", 'listen.x = "${A}"'),
        ("[listen]\nx = '${A}'", "unix:///run/s?mode=s3cret", "listen.x cannot be used"),
        (
            "[service.web]\napp = 'a:b'\nhttp = { trusted_proxies = ['${A}'] }",
            "s3cret",
            'trusted_proxies[0] = "${A}"',
        ),
    ],
)
def test_no_part_of_a_value_is_shown(text: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"{text}\n", {"A": value})
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_error_in_a_file_whose_name_comes_from_a_variable_names_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"^\$\{A\}/env:1:3: the value of X begins"):
        read("env_file = '${A}/env'", {"A": "/s3cret"}, {"/s3cret/env": b"X= 1"})


def test_what_only_the_machine_can_refuse_is_told_by_the_variables_that_it_comes_from() -> None:
    text = "[service.'my.web']\ncommand = ['a', '${B:-}']\nuser = '${A}'\ncwd = '/'\n"
    found = read(text, {"A": "s3cret"})
    for key, told in {
        "user = s3cret: there is no such user": "3:8: service.my.web.user (A): there is no such",
        "command = a\n: there is no": "2:11: service.my.web.command (B): there is no",
        "cwd = /: there is no": "4:7: service.my.web.cwd = /: there is no",
    }.items():
        with pytest.raises(ConfigError) as caught, found.placing("service", "my.web"):
            raise ConfigError(f"service.my.web.{key}")
        assert caught.value.what.startswith(f"/srv/shop.toml:{told}")


def test_the_name_of_the_manager_has_no_variables_and_can_be_read_without_them() -> None:
    text = 'name = "shop"\n[service.web]\ncommand = ["${UNSET}"]\nenv_file = "gone"\n'
    assert name(text.encode(), file="x") == "shop"
    assert name(b"", file="x") == "sockmgr"
    with pytest.raises(ConfigError, match=r'name = "\$\{A\}" cannot be used'):
        read('name = "${A}"\n[service.web]\ncommand = ["a"]', {"A": "shop"})


def test_a_command_line_has_been_through_a_shell() -> None:
    (found,) = from_arguments((), ["sh", "-c", "exec ${SERVER}"]).services
    assert found.command == ("sh", "-c", "exec ${SERVER}")


@settings(deadline=None)  # the machine may be busy
@given(st.text("${}:-Aa", max_size=12))
def test_a_text_is_itself_again_when_it_was_written_as_literal(text: str) -> None:
    written = outside.literal(text).replace("'", "")
    assert service(f"env = {{ X = '{written}' }}", A="no").env == (("X", text),)

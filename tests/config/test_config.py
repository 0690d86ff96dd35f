"""What a config may say, and that every mistake in it is named with its place and its remedy."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from sockmgr.config import address, config, placeholder
from sockmgr.config.config import Config, ServiceConfig, from_arguments, parse
from sockmgr.config.spec import (
    SURGE_ALL,
    Accept,
    Accepting,
    Address,
    Delay,
    Exec,
    Listen,
    Notify,
    Rollout,
    Scheme,
    Surge,
)
from sockmgr.errors import ConfigError

FULL = """\
name = "shop"

[listen]
http  = "tcp://127.0.0.1:8000"
admin = { address = "unix:///run/shop/admin.sock", mode = "0660", backlog = 128 }

[service.web]
command = ["uvicorn", "--fd", "{http}", "shop.main:app"]
listen  = ["http"]
workers = 4
cwd     = "/srv/shop/current"
env     = { LOG_LEVEL = "info" }
inherit_env = false
umask   = "022"
user    = "shop"
group   = "1000"
limits  = { nofile = 65536, core = [0, "unlimited"], as = "2G" }
listen_pid = false
ready   = "accepting"
ready_timeout = "1m30s"
stop_signal   = "SIGQUIT"
drain_timeout = 30
accept  = "shared"
max_age = "24h"
preset  = "none"

[service.web.rollout]
surge = "25%"
probation = "500ms"
max_failed_starts = 5
start_concurrency = 1
max_draining = 3
exclusive = true

[service.back]
command = ["./back"]
listen = ["admin"]

[dev]
watch = ["shop", "templates"]
ignore = ["*.log"]
include = ["*.html"]
"""
SMALL = '[listen]\nhttp = "tcp://127.0.0.1:80"\n[service.web]\ncommand = ["serve"]\n'


def read(text: str) -> Config:
    return parse(text.encode(), file="shop.toml")


def service(keys: str = "", head: str = SMALL) -> ServiceConfig:
    (only,) = read(head + keys).services
    return only


def error(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value


# --- What is right -----------------------------------------------------------------------------


def test_every_key_arrives_as_the_value_it_means() -> None:
    found = read(FULL)
    web, back = found.services
    assert found.name == "shop"
    assert found.dev == config.Dev(
        watch=("shop", "templates"), ignore=("*.log",), include=("*.html",)
    )
    assert found.listens() == {
        "http": Listen(
            name="http", address=Address(scheme=Scheme.TCP, host="127.0.0.1", port=8000)
        ),
        "admin": Listen(
            name="admin",
            address=Address(scheme=Scheme.UNIX, path="/run/shop/admin.sock"),
            mode=0o660,
            backlog=128,
        ),
    }
    assert web == ServiceConfig(
        name="web",
        command=("uvicorn", "--fd", "{http}", "shop.main:app"),
        listen=("http",),
        workers=4,
        cwd="/srv/shop/current",
        env=(("LOG_LEVEL", "info"),),
        inherit_env=False,
        umask=0o022,
        user="shop",
        group="1000",
        limits=(("as", 2**31, 2**31), ("core", 0, -1), ("nofile", 65536, 65536)),
        listen_pid=False,
        ready=Accepting(),
        ready_timeout=90.0,
        stop_signal=3,
        drain_timeout=30.0,
        max_age=86400.0,
        preset="none",
        rollout=Rollout(
            surge=Surge(amount=25, percent=True),
            probation=0.5,
            max_failed_starts=5,
            start_concurrency=1,
            max_draining=3,
            exclusive=True,
        ),
    )
    assert back == ServiceConfig(name="back", command=("./back",), listen=("admin",))


def test_what_is_not_said_has_the_documented_default() -> None:
    only = service()
    assert only == ServiceConfig(name="web", command=("serve",), listen=("http",))
    assert (only.workers, only.stop_signal, only.preset) == (1, None, "auto")
    assert only.rollout.surge == SURGE_ALL
    assert only.rollout.start_concurrency == 0
    assert read(SMALL).name == "sockmgr"


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        service().workers = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("0", 0), ("1.5", 1.5), ('"90s"', 90), ('"1m30s"', 90), ('"1h"', 3600),
     ('"2d"', 172800), ('"250ms"', 0.25), ('"1.5s"', 1.5)],
)  # fmt: skip
def test_a_duration_is_seconds_or_a_number_of_each_unit(text: str, seconds: float) -> None:
    assert service(f"drain_timeout = {text}").drain_timeout == seconds


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ('"accepting"', Accepting()),
        ('"notify"', Notify()),
        ('{ delay = "2s" }', Delay(seconds=2)),
        ('{ exec = ["check", "{http}"] }', Exec(argv=("check", "{http}"))),
    ],
)
def test_ready_can_be_told_in_four_ways(text: str, ready: object) -> None:
    assert service(f"ready = {text}").ready == ready


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_workers_share_a_queue_or_have_one_each(accept: Accept) -> None:
    assert service(f'accept = "{accept}"').accept is accept
    assert service().accept is Accept.SHARED


def test_a_service_without_listeners_is_a_plain_process_that_is_ready_by_guess() -> None:
    only = service(head='[service.job]\ncommand = ["job"]\n')
    assert (only.listen, only.ready) == ((), Delay(seconds=1.0))


def test_the_only_service_has_all_listeners_in_the_order_of_the_file() -> None:
    text = '[listen]\nb = "tcp://h:1"\na = "tcp://h:2"\n[service.x]\ncommand = ["x"]\n'
    assert service(head=text).listen == ("b", "a")


@pytest.mark.parametrize(
    ("file", "cwd", "expected"),
    [
        ("/etc/shop/sockmgr.toml", "current", "/etc/shop/current"),
        ("/etc/shop/sockmgr.toml", "/srv", "/srv"),
        ("conf/sockmgr.toml", "current", "conf/current"),
        ("sockmgr.toml", "current", "current"),
        ("/sockmgr.toml", "current", "/current"),
    ],
)
def test_a_relative_directory_begins_where_the_file_is(file: str, cwd: str, expected: str) -> None:
    found = parse(f'{SMALL}cwd = "{cwd}"'.encode(), file=file)
    assert found.services[0].cwd == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:0", Address(scheme=Scheme.TCP, host="127.0.0.1", port=0)),
        ("tcp://shop.local:65535", Address(scheme=Scheme.TCP, host="shop.local", port=65535)),
        ("tcp://[0:0::1]:80", Address(scheme=Scheme.TCP, host="::1", port=80)),
        ("udp://0.0.0.0:53", Address(scheme=Scheme.UDP, host="0.0.0.0", port=53)),
        ("unix:///run/a%20b.sock", Address(scheme=Scheme.UNIX, path="/run/a b.sock")),
        ("unix-abstract:shop", Address(scheme=Scheme.ABSTRACT, path="shop")),
        ("fd://3", Address(scheme=Scheme.FD, fd=3)),
    ],
)
def test_an_address_has_one_of_five_schemes(text: str, expected: Address) -> None:
    assert address.parse(text) == (expected, {})


def test_options_of_a_unix_path_may_stand_in_the_address() -> None:
    text = SMALL.replace("tcp://127.0.0.1:80", "unix:///run/s?mode=0600&user=a&group=b")
    (listen,) = read(text).listen
    assert (listen.mode, listen.user, listen.group) == (0o600, "a", "b")


def test_braces_that_name_nothing_are_plain_text() -> None:
    argv = ['{"a": 1}', "{}", "{{http}}", "${HOME}", "a{http}b"]
    assert placeholder.names(argv) == ("HOME", "http")
    assert placeholder.fill(argv, {"http": 3, "HOME": 4}) == (
        '{"a": 1}', "{}", "{http}", "$4", "a3b",
    )  # fmt: skip


@given(st.text("{}a", max_size=9))
def test_a_text_is_itself_again_when_it_was_written_as_literal(text: str) -> None:
    written = placeholder.literal(text)
    assert placeholder.names([written]) == ()
    assert placeholder.fill([written], {}) == (text,)


# --- What is wrong -----------------------------------------------------------------------------

# An edit of FULL, where the error must point, and words that it must have.
MISTAKES = {
    "unknown key at the top": ('name = "shop"', 'nmae = "shop"', "1:1", 'nmae .* "name"'),
    "unknown key of a listener": ("backlog = 128", "bakclog = 1", "5:67", '"backlog"'),
    "unknown key of a service": ("workers = 4", "worker = 4", "10:1", '"workers"'),
    "unknown key of a rollout": ("probation", "probaton", "29:1", '"probation"'),
    "unknown key of dev": ("include =", "includes =", "42:1", '"include"'),
    "unknown limit": ("nofile = 65536", "nofiles = 1", "17:13", '"nofile"'),
    "key far from any": ("workers = 4", "zzz = 4", "10:1", "known: accept, app, command,"),
    "not a number": ("workers = 4", 'workers = "4"', "10:11", 'workers = "4" .* whole number'),
    "negative": ("workers = 4", "workers = -4", "10:11", "-4 .* from 1"),
    "zero": ("workers = 4", "workers = 0", "10:11", "= 0 .* from 1"),
    "boolean for a number": ("workers = 4", "workers = true", "10:11", "= true"),
    "not a boolean": ("listen_pid = false", "listen_pid = 0", "18:14", "true or false"),
    "not a text": ('user    = "shop"', "user = 7", "15:8", "in quotes"),
    "empty command": ('command = ["./back"]', "command = []", "36:11", "the program"),
    "command as a text": ('command = ["./back"]', 'command = "./back"', "36:11", "an array"),
    "number in a command": ('["./back"]', '["./back", 7]', "36:22", r"command\[1\] = 7"),
    "no command": ('command = ["./back"]\n', "", "35:1", "service.back has no command"),
    "listener not known": ('listen  = ["http"]', 'listen = ["htp"]', "9:11", r"\(http, admin\)"),
    "listener twice": ('["http"]', '["http", "http"]', "9:20", "once"),
    "placeholder not known": ("{http}", "{htp}", "8:31", r"\{htp\}.*\(http\).*\{\{htp\}\}"),
    "placeholder of another": ("{http}", "{admin}", "8:31", r"a listener of this service \(http"),
    "listener of two services": ('["admin"]', '["http"]', "37:1", r"http, which service\.web has"),
    "listener of nobody": ('["admin"]', "[]", "5:1", r"listen\.admin is used by no service"),
    "listeners not said": ('listen = ["admin"]\n', "", "35:1", r"add listen = \["),
    "one address twice": (
        '{ address = "unix:///run/shop/admin.sock", mode = "0660", backlog = 128 }',
        '"tcp://127.0.0.1:8000"', "5:1", r"listen\.http has",
    ),
    "address without port": ("127.0.0.1:8000", "127.0.0.1", "4:9", "HOST:PORT"),
    "address without host": ("127.0.0.1:8000", ":8000", "4:9", r"0\.0\.0\.0.*\[::\]"),
    "port too high": (":8000", ":80000", "4:9", "65535"),
    "bad IPv6": ("127.0.0.1:8000", "[::zz]:80", "4:9", "::zz is not an IPv6"),
    "scheme not known": ("tcp://", "http://", "4:9", "unix-abstract:NAME"),
    "scheme to come": ("tcp://127.0.0.1:8000", "vsock://2:80", "4:9", "this version"),
    "relative unix path": ("unix:///run", "unix://run", "5:21", "three slashes"),
    "long unix path": ("/run/shop/", f"/run/{'x' * 99}/", "5:21", "107 bytes"),
    "option not known": ("admin.sock", "admin.sock?moode=1", "5:21", "mode=0660"),
    "option twice": ("admin.sock", "admin.sock?mode=1", "5:21", "once"),
    "mode as a number": ('mode = "0660"', "mode = 660", "5:59", "660 .* octal"),
    "mode not octal": ("0660", "0680", "5:59", "0680.* octal"),
    "mode of tcp": (
        '"tcp://127.0.0.1:8000"', '{ address = "tcp://h:1", mode = "0600" }', "4:34", "unix://",
    ),
    "listener without address": ('address = "unix:///run/shop/admin.sock", ', "", "5:1", "address"),
    "listener's name": ("admin =", '"ad:min" =', "5:1", r'"ad:min" is not a name'),
    "service's name": ("[service.back]", '[service."a b"]', "35:1", '"a b"'),
    "name of all": ('name = "shop"', 'name = "a/b"', "1:8", '"a/b"'),
    "duration": ('"1m30s"', '"1m 30s"', "20:17", '"1m 30s" .* "1m30s"'),
    "duration infinite": ("drain_timeout = 30", "drain_timeout = inf", "22:17", "duration"),
    "duration nan": ("drain_timeout = 30", "drain_timeout = nan", "22:17", "duration"),
    "duration negative": ("drain_timeout = 30", "drain_timeout = -1", "22:17", "duration"),
    "no time to get ready": ('"1m30s"', "0", "20:17", "above 0"),
    "size": ('as = "2G"', 'as = "2GB"', "17:59", '"512M"'),
    "limit upside down": ('[0, "unlimited"]', "[2, 1]", "17:36", "soft limit not above"),
    "limit unlimited above": ('[0, "unlimited"]', '["unlimited", 1]', "17:36", "soft limit"),
    "signal": ("SIGQUIT", "SIGQUIET", "21:17", "HUP, INT, QUIT"),
    "signal that cannot drain": ("SIGQUIT", "KILL", "21:17", "drain_timeout of 0"),
    "surge": ('"25%"', '"25 %"', "28:9", '"25 %" .* "all"'),
    "no surge": ('"25%"', "0", "28:9", "exclusive = true"),
    "surge above all": ('"25%"', '"101%"', "28:9", '"100%"'),
    "ready": ('ready   = "accepting"', 'ready = "http"', "19:9", '"notify"'),
    "ready to come": ('ready   = "accepting"', 'ready = { http = "/" }', "19:11", "this version"),
    "ready twofold": ('ready   = "accepting"', "ready = {}", "19:9", "exec"),
    "accept": ('accept  = "shared"', 'accept = "each"', "23:10", '"shared", "per-worker"'),
    "policy alone": ('accept  = "shared"', 'policy = "least-connections"', "23:1", "no meaning"),
    "limit alone": ('accept  = "shared"', "max_connections = 9", "23:1", "no meaning here"),
    "policy": ('accept  = "shared"', 'policy = "random"', "23:10", '"least-connections"'),
    "app and command": ("workers = 4", 'app = "a:b"', "10:1", "app stands beside command"),
    "interface beside command": ("workers = 4", 'interface = "asgi"', "10:1", "no meaning beside"),
    "http beside command": ("workers = 4", "http = {}", "10:1", "http has no meaning beside"),
    "max_rss": ("max_age = ", "max_rss = ", "24:1", "max_rss is not in this version"),
    "canary": ("exclusive = true", "canary = {}", "33:1", "canary is not in this version"),
    "preset": ('preset  = "none"', 'preset = "apache"', "25:10", '"gunicorn"'),
    "variable that is ours": ("LOG_LEVEL =", "LISTEN_FDS =", "12:13", "sockmgr itself"),
    "number in env": ('LOG_LEVEL = "info"', "PORT = 80", "12:20", 'PORT = "80"'),
    "variable without name": ("LOG_LEVEL =", '"" =', "12:13", "not a name"),
    "NUL": ('"./back"', '"./back\\u0000"', "36:12", "u0000"),
    "service without a name": ("[service.back]", "[service]", "36:1", r"\[service.NAME\]"),
    "dev": ('watch = ["shop", "templates"]', 'watch = "shop"', "40:9", "array"),
    "syntax": ("workers = 4", "workers = four", "10:11", "not TOML"),
    "key twice": ("workers = 4", "workers = 4\nworkers = 5", "11:12", "not TOML"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(
    mistake: tuple[str, str, str, str],
) -> None:
    right, wrong, place, words = mistake
    assert FULL.count(right) >= 1
    found = error(FULL.replace(right, wrong, 1))
    assert found.what.startswith(f"shop.toml:{place}: ")
    assert re.search(words, str(found), re.DOTALL), str(found)
    assert found.do


@pytest.mark.parametrize(
    "env",
    [
        "{ P = 12345678 }", '{ P = ["12345678"] }', "{ P.Q = 12345678 }",
        '{ P = "12345678\\u0000" }',
        '"P=12345678"', '["P=12345678"]', '{ "P=12345678" = "" }', "{ P = 12345678.5 }",
    ],
)  # fmt: skip
def test_no_error_shows_the_value_of_a_variable(env: str) -> None:
    found = error(SMALL + f"env = {env}\n")
    assert re.match(r"shop\.toml:\d+:\d+: service\.web\.env\b", found.what)
    assert "1234" not in str(found)
    assert found.do


def test_accepting_needs_a_listener_to_accept_on() -> None:
    found = error('[service.job]\ncommand = ["job"]\nready = "accepting"\n')
    assert found.what.startswith("shop.toml:3:9: ")
    assert "without listeners" in found.do


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_port_0_of_one_host_is_one_address_like_any_other(scheme: str) -> None:
    text = f'[listen]\na = "{scheme}://h:0"\nb = "{scheme}://%s:0"\n[service.x]\ncommand = ["x"]\n'
    found = error(text % "h")
    assert found.what == (
        f"shop.toml:3:1: listen.b has the address {scheme}://h:0, which listen.a has"
    )
    assert len(read(text % "i").listen) == 2


def test_bytes_that_are_not_utf8_are_named_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"shop\.toml:2:10: byte 0xff is not UTF-8"):
        parse("a = 1\nname = 'ä".encode() + b"\xff'", file="shop.toml")


@pytest.mark.parametrize("text", ["", "[listen]\n", "[service]\n", 'name = "x"\n'])
def test_a_config_without_a_service_shows_how_one_is_written(text: str) -> None:
    assert "command = [" in error(text).do


def test_a_byte_order_mark_is_named() -> None:
    assert "byte order mark" in error("\ufeff" + SMALL).do


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_what_no_parser_can_hold_is_an_error_like_any_other(text: str) -> None:
    assert "not usable TOML" in error(text).what


def test_no_key_of_the_service_is_forgotten_by_the_reader() -> None:
    known = {field.name for field in fields(ServiceConfig)} - {"name"}
    listed = error(SMALL + "zzzzzz = 1").do.removeprefix("known: ").split(", ")
    assert set(listed) == known | {"accept"}


# --- The command line --------------------------------------------------------------------------


def test_arguments_make_the_same_config_as_a_file() -> None:
    keys = {"workers": 4, "drain_timeout": "1m", "surge": "1", "ready": {"delay": 2}}
    text = SMALL + 'workers = 4\ndrain_timeout = "1m"\nready = { delay = 2 }\nrollout.surge = 1\n'
    given = from_arguments(["http=tcp://127.0.0.1:80"], ["serve"], keys=keys)
    assert given == read(text)
    assert from_arguments([], ["job"], name="jobs").name == "jobs"


@pytest.mark.parametrize(
    ("listen", "command", "keys", "words"),
    [
        ("tcp://h:1", "x", {}, r"--listen tcp://h:1: it has no name\n.*http=tcp://h:1"),
        ("unix:///a?mode=1", "x", {}, "it has no name"),
        ("a=tcp://h", "x", {}, r"--listen a=tcp://h: listen\.a .*\n.*HOST:PORT"),
        ("a=tcp://h:1 a=tcp://h:2", "x", {}, "--listen a=tcp://h:2: the name a is given twice"),
        ("a=tcp://h:1", "x", {"workers": 0}, "--workers: .* = 0"),
        ("a=tcp://h:1", "x", {"drain_timeout": "1y"}, '--drain-timeout: .* "1y"'),
        ("a=tcp://h:1", "x", {"surge": "0%"}, '--surge: .* "0%"'),
        ("a=tcp://h:1", "x", {"wrokers": 2}, '--wrokers: .*\n.*"workers"'),
        ("a=tcp://h:1", "x {b}", {}, r"COMMAND: .*\{b\}"),
        ("a=tcp://h:1", "", {}, "COMMAND: .* the program"),
        ("", "x", {"ready": "accepting"}, "--ready: "),
    ],
)
def test_a_wrong_argument_is_named_as_it_was_given(
    listen: str, command: str, keys: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_arguments(listen.split(), command.split(), keys=keys)
    assert re.match(words, str(caught.value), re.DOTALL) or re.search(words, str(caught.value))


def test_a_wrong_name_is_named_as_it_was_given() -> None:
    with pytest.raises(ConfigError, match="--name: "):
        from_arguments([], ["x"], name="../x")


@given(st.data())
def test_any_edit_of_a_config_is_a_config_or_one_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    end = data.draw(st.integers(at, min(len(FULL), at + 20)))
    lines = st.sampled_from(FULL.splitlines())
    put = data.draw(st.text(max_size=5) | st.sampled_from('"[]{}=\n.') | lines)
    with contextlib.suppress(ConfigError):  # any other exception is a failure
        assert isinstance(read(FULL[:at] + put + FULL[end:]), Config)


@pytest.mark.parametrize(
    ("listen", "program", "why"),
    [
        ("tcp://127.0.0.1:0", 'command = ["x", "{http}"]', "names the listener http"),
        ("udp://127.0.0.1:0", 'command = ["x"]', "UDP has no connections"),
    ],
)
def test_who_cannot_be_passed_connections_is_refused(listen: str, program: str, why: str) -> None:
    text = f'[listen]\nhttp = "{listen}"\n[service.web]\n{program}\naccept = "dispatch"\n'
    assert why in error(text).what or why in error(text).do
    read(text.replace("dispatch", "shared"))

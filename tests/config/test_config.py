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
from sockmgr.config.probe import Healthy, HttpProbe, TcpProbe
from sockmgr.config.spec import (
    SURGE_ALL,
    TRAITS,
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
    traits_of,
)
from sockmgr.errors import ConfigError
from tests.config.texts import FULL, MISTAKES

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


def test_two_configs_that_say_the_same_are_equal_wherever_they_stand() -> None:
    assert read(SMALL) == parse(f"# the shop\n{SMALL}".encode(), file="other.toml")


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
        ('{ exec = ["check"], accepting = false }', Exec(argv=("check",), accepting=False)),
        ('{ http = "/up" }', HttpProbe(path="/up")),
        (
            '{ http = "/up", expect = [204, "3xx"], timeout = "1s", every = 0.5, host = "shop", '
            'headers = { X-Probe = "1" }, listener = "http" }',
            HttpProbe(
                path="/up", expect=("204", "3xx"), timeout=1.0, every=0.5, host="shop",
                headers=(("X-Probe", "1"),), listener="http",
            ),
        ),
        ('{ tcp = true, timeout = "5s" }', TcpProbe(timeout=5.0)),
    ],
)  # fmt: skip
def test_ready_can_be_told_in_six_ways(text: str, ready: object) -> None:
    assert service(f"ready = {text}").ready == ready


def test_a_worker_that_serves_is_probed_much_less_often_than_one_that_boots() -> None:
    found = service('accept = "per-worker"\nhealthy = { http = "/up", failures = 5 }').healthy
    assert found == Healthy(probe=HttpProbe(path="/up", every=5.0), failures=5)


@pytest.mark.parametrize(
    ("address", "keys", "words"),
    [
        ("udp://127.0.0.1:53", 'ready = { http = "/" }', "a is of UDP|no listener for any"),
        ("udp://127.0.0.1:53", 'ready = { tcp = true, listener = "a" }', "a is of UDP"),
        ("unix:///run/s", "ready = { tcp = true }", "not told of unix sockets"),
        (
            "tcp://[::1]:1",
            'ready = { tcp = true }\naccept = "dispatch"',
            "each worker says that it",
        ),
    ],
)
def test_a_probe_that_could_not_reach_the_new_workers_alone_is_refused_with_the_reason(
    address: str, keys: str, words: str
) -> None:
    text = f'[listen]\na = "{address}"\n[service.web]\ncommand = ["serve"]\n{keys}\n'
    assert re.search(words, error(text).what)


def test_a_unix_socket_can_be_probed_where_connections_are_passed() -> None:
    head = '[listen]\na = "unix:///run/s"\n[service.web]\napp = "a:b"\naccept = "dispatch"\n'
    keys = 'ready = { http = "/" }\nhealthy = { http = "/" }\nrollout.warmup = ["/"]'
    assert service(keys, head).ready == HttpProbe(path="/")


@pytest.mark.parametrize(
    "keys",
    ["proxy_protocol = true", 'certfile = "a"\nca_certs = "b"\nclient_certs = "required"'],
)
def test_a_probe_by_http_that_an_app_would_never_answer_is_refused(keys: str) -> None:
    text = SMALL.replace('command = ["serve"]', 'app = "a:b"\nready = { http = "/" }')
    found = error(f"{text}[service.web.http]\n{keys}\n")
    assert "service.web.ready" in found.what
    assert "tcp = true" in found.do


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
    assert address.parse(str(expected)) == (expected, {})


def test_every_scheme_has_its_traits() -> None:
    assert TRAITS.keys() == set(Scheme)
    for scheme in Scheme:
        address = Address(scheme=scheme, host="::1", port=1, path="/run/s", fd=3)
        assert traits_of(str(address)) is address.traits


def test_an_address_of_no_known_scheme_has_no_traits_but_that_it_was_inherited() -> None:
    assert traits_of("a socket of family 40") is TRAITS[Scheme.FD]


def test_options_of_a_unix_path_may_stand_in_the_address() -> None:
    text = SMALL.replace("tcp://127.0.0.1:80", "unix:///run/s?mode=0600&user=a&group=b")
    (listen,) = read(text).listen
    assert (listen.mode, listen.user, listen.group) == (0o600, "a", "b")


def test_braces_that_name_nothing_are_plain_text() -> None:
    argv = ['{"a": 1}', "{}", "{{http}}", "${HOME}", "a{http}b"]
    assert placeholder.names(argv) == ("http",)
    assert placeholder.fill(argv, {"http": 3, "HOME": 4}, 1) == (
        '{"a": 1}', "{}", "{http}", "${HOME}", "a3b",
    )  # fmt: skip


def test_the_slot_is_no_listener_and_is_filled_in_beside_them() -> None:
    argv = ["{slot}{http}", "{{slot}}", "{slots}"]
    assert placeholder.names(argv) == ("http", "slots")
    assert placeholder.fill(argv, {"http": 3, "slots": 4}, 7) == ("73", "{slot}", "4")
    assert placeholder.in_slot("{slot}{http}{{slot}}", 7) == "7{http}{slot}"
    assert placeholder.names_slot("a{slot}")
    assert not placeholder.names_slot("{{slot}}{http}")


@given(st.text("{}a", max_size=9))
def test_a_text_is_itself_again_when_it_was_written_as_literal(text: str) -> None:
    written = placeholder.literal(text)
    assert placeholder.names([written]) == ()
    assert placeholder.fill([written], {}, 1) == (text,)


# --- What is wrong -----------------------------------------------------------------------------


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


@pytest.mark.parametrize("parts", [99, *range(200, 1000, 50)])
def test_a_key_of_any_number_of_parts_is_an_error_of_the_config(parts: int) -> None:
    told = error(f"[service.web{'.a' * parts}]\n").what
    assert "is not a known key" in told or "nested too deeply" in told


def test_no_key_of_the_service_is_forgotten_by_the_reader() -> None:
    known = {field.name for field in fields(ServiceConfig)} - {"name"}
    listed = error(SMALL + "zzzzzz = 1").do.removeprefix("known: ").split(", ")
    assert set(listed) == known | {"env_file"}  # whose variables are in env


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

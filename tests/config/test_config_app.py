"""A service that has an `app` instead of a command."""

from __future__ import annotations

import re

import pytest

from sockmgr.config.app_keys import Http
from sockmgr.config.config import ServiceConfig, parse
from sockmgr.config.spec import Accepting, Notify
from sockmgr.errors import ConfigError

HEAD = '[listen]\nhttp = "tcp://127.0.0.1:80"\n[service.web]\n'


def service(keys: str, head: str = HEAD) -> ServiceConfig:
    (only,) = parse((head + keys).encode(), file="shop.toml").services
    return only


def test_an_app_tells_when_it_is_ready_unless_said_otherwise() -> None:
    assert service('app = "shop.main:app"') == ServiceConfig(
        name="web", app="shop.main:app", listen=("http",), ready=Notify()
    )
    assert service('app = "a:b"\nready = "accepting"').ready == Accepting()


def test_what_is_said_of_http_arrives() -> None:
    found = service(
        'app = "shop:create_app()"\ninterface = "wsgi"\n[service.web.http]\nkeep_alive = "1m"\n'
        'protocol = "h11"\nwebsockets = "none"\nloop = "asyncio"\nthreads = 4\nroot_path = "/s"\n'
        'certfile = "c.pem"\nkeyfile = "k.pem"\n'
        'trusted_proxies = ["*"]\nlog_level = "warning"\naccess_log = false\n'
    )
    assert found.interface == "wsgi"
    assert not found.preload
    assert found.http == Http(
        keep_alive=60, protocol="h11", websockets="none", loop="asyncio", threads=4, root_path="/s",
        certfile="c.pem", keyfile="k.pem",
        trusted_proxies=("*",), log_level="warning", access_log=False,
    )  # fmt: skip


@pytest.mark.parametrize("protocol", ["auto", "zttp"])
def test_http2_can_be_asked_for(protocol: str) -> None:
    found = service(f'app = "a:b"\nhttp = {{ http2 = true, protocol = "{protocol}" }}')
    assert found.http == Http(http2=True, protocol=protocol)


def test_an_app_can_be_preloaded() -> None:
    assert service('app = "a:b"\npreload = true').preload


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('command = ["x"]\npreload = true', "5:1: .*preload has no meaning .* an app instead"),
        ('command = ["x"]\npython = "p"', "5:1: .*python has no meaning .* an app instead"),
        (
            'app = "a:b"\nhttp = { keyfile = "k" }',
            "5:.*http.keyfile has no meaning without certfile",
        ),
        (
            'app = "a:b"\nhttp = { certfile = "c", ca_certs = "a" }',
            "5:.*http.ca_certs has no meaning without client_certs\n.*or remove both",
        ),
        (
            'app = "a:b"\nhttp = { certfile = "c", client_certs = "required" }',
            "5:.*http.client_certs has no meaning without ca_certs",
        ),
        (
            'app = "a:b"\nhttp = { proxy_protocol = true, trusted_proxies = [] }',
            "5:.*http.proxy_protocol believes nobody, for trusted_proxies is empty",
        ),
        (
            'app = "a:b"\nhttp = { trusted_proxies = ["::1", "10.0.0.5/8"] }',
            r'5:.*http.trusted_proxies\[1\] = "10.0.0.5/8".*without host bits',
        ),
        (
            'app = "a:b"\nhttp = { trusted_proxies = ["proxy.local"] }',
            '5:.*= "proxy.local" .*such as "10.0.0.5"',
        ),
        ('app = "shop"', '4:7: .* "shop" cannot be used\n.*"shop.main:app"'),
        ('app = "shop:app"\ncommand = ["x"]', "4:1: service.web.app stands beside command"),
        ("workers = 2", r'3:1: service.web has no command\n.*app = "shop.main:app"'),
        ('app = "a:b"\npreset = "none"', "5:1: service.web.preset has no meaning beside app"),
        ('app = "a:b"\nstop_signal = "INT"', "5:1: service.web.stop_signal has no meaning"),
        ('app = "a:b"\nlisten = []', "3:1: service.web has no listener for its app"),
        ('app = "a:b"\nhttp = { keepalive = 1 }', '5:10: .*did you mean "keep_alive"'),
        (
            'app = "a:b"\nhttp = { protocol = "h11", http2 = true }',
            '5:.*http2 has no meaning beside protocol = "h11".*set protocol = "zttp"',
        ),
        ('app = "a:b"\nhttp = { root_path = "shop/" }', "5:22: .* without / at its end"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_to_do(keys: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        service(keys)
    assert re.match(f"shop.toml:{words}", re.sub(r"\n +", "\n", str(caught.value)), re.DOTALL)


def test_an_app_does_not_serve_datagrams() -> None:
    with pytest.raises(ConfigError, match=r"3:1: service.web serves HTTP, and its listener http"):
        service('app = "a:b"', HEAD.replace("tcp", "udp"))

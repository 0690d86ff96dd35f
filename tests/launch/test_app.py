"""What the workers of `app =` are started as."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sockmgr.config import announcement
from sockmgr.config.app_keys import Http
from sockmgr.config.config import parse
from sockmgr.config.spec import Spec
from sockmgr.errors import ConfigError, SpawnError
from sockmgr.launch import resolve
from sockmgr.worker.options import Options
from sockmgr.worker.options import parse as parse_options

HEAD = '[listen]\nhttp = "tcp://127.0.0.1:0"\nadmin = "tcp://127.0.0.2:0"\n[service.web]\n'


def spec(keys: str) -> Spec:
    config = parse((HEAD + keys).encode(), file="shop.toml")
    return resolve.prepare(config.services[0], config.listens(), os.environ).spec()


def options(found: Spec) -> Options:
    """Return what the runtime reads on its command line."""
    program, *rest = announcement.arguments(found, 1)
    assert program == found.executable
    assert rest[:3] == ["-P", "-m", "sockmgr.worker"]
    return parse_options(rest[3:])


def test_an_app_is_run_in_our_own_python_with_its_sockets_as_arguments() -> None:
    found = spec('app = "shop.main:app"\ndrain_timeout = "12s"')
    assert Path(found.executable).samefile(sys.executable)
    assert options(found) == Options(app="shop.main:app", fds=(3, 4), drain_timeout=12)
    assert announcement.variables(found, {}) == {}
    assert not found.set_listen_pid
    assert found.broken_exits == {2, 3}


def test_an_app_gets_its_channel_and_no_listener_where_the_manager_accepts() -> None:
    found = spec('app = "shop.main:app"\naccept = "dispatch"')
    assert options(found) == Options(app="shop.main:app")
    assert announcement.variables(found, {}) == {
        "SOCKMGR_DISPATCH_FD": "3",
        "SOCKMGR_DISPATCH_NAMES": "http:admin",
        "SOCKMGR_DISPATCH_PACE": "100",
    }
    assert not found.set_listen_pid


@pytest.mark.parametrize("more", ['policy = "least-connections"', "max_connections = 9"])
def test_a_worker_reports_often_where_that_decides_who_is_next(more: str) -> None:
    found = spec(f'app = "shop.main:app"\naccept = "dispatch"\n{more}')
    assert announcement.variables(found, {})["SOCKMGR_DISPATCH_PACE"] == "1"


def test_all_that_the_config_says_reaches_the_runtime() -> None:
    found = spec(
        'app = "shop:app()"\ninterface = "wsgi"\n[service.web.http]\nkeep_alive = 7.5\n'
        'protocol = "h11"\nwebsockets = "websockets"\nloop = "uvloop"\nthreads = 4\n'
        'root_path = "/{http}"\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n'
        'log_level = "warning"\naccess_log = false\ncertfile = "c.pem"\nkeyfile = "k.pem"\n'
        'keyfile_password_file = "p"\nca_certs = "a.pem"\nclient_certs = "optional"\n'
        'proxy_protocol = true\nheader_timeout = "30s"\n'
    )
    assert options(found) == Options(
        app="shop:app()", fds=(3, 4), interface="wsgi", keep_alive=7.5, http="h11",
        ws="websockets-sansio", loop="uvloop", threads=4, root_path="/{http}",
        trusted_proxies=("10.0.0.0/8", "::1"), log_level="warning", access_log=False,
        certfile="c.pem", keyfile="k.pem", keyfile_password_file="p", ca_certs="a.pem",
        client_certs="optional", proxy_protocol=True, header_timeout=30.0,
    )  # fmt: skip


def test_no_proxy_is_trusted_if_none_is_named() -> None:
    found = spec('app = "a:b"\nhttp = { trusted_proxies = [] }')
    assert options(found).trusted_proxies == ()


def test_what_forwarded_allow_ips_says_holds_if_no_proxy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    assert options(spec('app = "a:b"')).trusted_proxies == ("192.0.2.1",)


def test_http2_is_asked_of_the_worker() -> None:
    found = options(spec('app = "a:b"\nhttp = { http2 = true }'))
    assert (found.http, found.http2) == ("zttp", True)


def environment(folder: Path, *packages: str, settings: str = "") -> Path:
    """Make what looks like a virtual environment; return its interpreter."""
    site = folder / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for package in packages:
        (site / package).mkdir()
    (folder / "pyvenv.cfg").write_text(settings)
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    return python


def test_an_app_is_run_by_the_interpreter_of_the_release_that_is_current(tmp_path: Path) -> None:
    for release in ("1", "2"):
        environment(tmp_path / release / ".venv", "sockmgr-0.1.dist-info", "uvicorn-1.dist-info")
    current = tmp_path / "current"
    keys = f'app = "a:b"\npreload = true\npython = ".venv/bin/python"\ncwd = "{current}"'
    for release in ("1", "2"):
        current.unlink(missing_ok=True)
        current.symlink_to(release)
        found = spec(keys)
        assert found.executable == found.argv[0] == str(tmp_path / release / ".venv/bin/python")
        assert found.argv[1:4] == ("-P", "-m", "sockmgr.worker")
        assert found.preload


@pytest.mark.parametrize(
    ("has", "keys", "missing"),
    [
        ((), "", "sockmgr, which runs it"),
        (("sockmgr-0.1.dist-info",), "", "uvicorn, which serves it"),
        (("sockmgr-1.dist-info", "uvicorn-1.dist-info"), "http2 = true", "zttp, which parses HTTP"),
    ],
)
def test_an_environment_that_lacks_something_is_an_error_of_the_config_that_says_how(
    has: tuple[str, ...], keys: str, missing: str, tmp_path: Path
) -> None:
    python = environment(tmp_path / "venv", *has)
    with pytest.raises(ConfigError, match=missing) as caught:
        spec(f'app = "a:b"\npython = "{python}"\n[service.web.http]\n{keys}')
    assert f"service.web.python = {python}: " in str(caught.value)
    assert f"is not installed for {python}" in str(caught.value)
    assert f"{python} -m pip install 'sockmgr[" in caught.value.do


def test_what_an_environment_may_have_from_elsewhere_is_not_judged(tmp_path: Path) -> None:
    python = environment(tmp_path / "a", settings="include-system-site-packages = true\n")
    assert spec(f'app = "a:b"\npython = "{python}"').executable == str(python)
    python = environment(tmp_path / "b")
    found = spec(f'app = "a:b"\npython = "{python}"\nenv = {{ PYTHONPATH = "/opt" }}')
    assert found.executable == str(python)


def test_an_interpreter_that_is_not_there_is_named_by_its_key() -> None:
    with pytest.raises(SpawnError, match=r"service\.web\.python = no/python: /\S+ does not exist"):
        spec('app = "a:b"\npython = "no/python"')


@pytest.mark.parametrize(
    ("missing", "extra", "keys"),
    [("uvicorn", "asgi", ""), ("zttp", "http2", "\nhttp = { http2 = true }")],
)
def test_a_package_that_is_missing_is_an_error_of_the_config_with_what_to_install(
    missing: str, extra: str, keys: str
) -> None:
    program = f"""
import os, sys
sys.modules["{missing}"] = None
from sockmgr.launch import resolve
from sockmgr.config.config import parse
from sockmgr.errors import ConfigError
config = parse({(HEAD + 'app = "shop:app"' + keys).encode()!r}, file="shop.toml")
try:
    resolve.prepare(config.services[0], config.listens(), os.environ).spec()
except ConfigError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert f"service.web.app = shop:app: {missing}, which " in told
    assert f"pip install 'sockmgr[{extra}]'" in told


# What a runtime of 0.9.0 is told, and a manager of 0.9.0 tells: neither need be of our version.
_OF_0_9_0 = """
--fd=3 --drain-timeout=30 --interface=asgi --http=h11 --ws=none --keep-alive=5 --loop=asyncio
--threads=4 --http2 --certfile=c --keyfile=k --keyfile-password-file=p --ca-certs=a
--client-certs=none --root-path=/r --trusted-proxy=::1 --proxy-protocol --header-timeout=20
--log-level=info --no-access-log --template=2
"""


def test_the_runtime_takes_each_option_of_a_manager_of_0_9_0() -> None:
    told = [option for option in _OF_0_9_0.split() if option != "--http=h11"]  # not with --http2
    assert parse_options([*told, "shop:app"]).template == 2


def test_a_runtime_of_0_9_0_knows_each_option_that_a_config_without_newer_keys_needs() -> None:
    known = {option.partition("=")[0] for option in _OF_0_9_0.split()}
    for keys in ("", "preload = true", "[service.web.http]\nmigrate = false"):
        told = announcement.arguments(spec(f'app = "shop:app"\n{keys}'), 1)
        assert {word.partition("=")[0] for word in told if word.startswith("--")} <= known


def test_what_a_config_leaves_open_is_what_the_runtime_does_by_itself() -> None:
    by_config, by_itself = Http(), Options(app="shop:app")
    assert (by_config.protocol, by_config.websockets) == (by_itself.http, by_itself.ws)

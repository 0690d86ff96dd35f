"""The doctor finds each fault that is planted in a config, and no other."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sockmgr.api.types import ServiceStatus, WorkerStatus
from sockmgr.config.config import parse
from sockmgr.doctor import proxy
from sockmgr.doctor.finding import Check
from sockmgr.doctor.workers import unnamed
from tests.doctor.diagnosis import CONFIG, SERVER, diagnose, is_free, sole
from tests.e2e.apps import ROOT
from tests.helpers.command_line import sockmgr


def write(path: Path, command: list[str], *keys: str) -> None:
    """Write a config of one service that has this command and these lines."""
    lines = "\n".join(keys)
    head = CONFIG.removesuffix(SERVER)
    path.write_text(f"{head}[service.web]\ncommand = {json.dumps(command)}\n{lines}\n")


def test_a_config_without_a_fault_gives_no_finding(config: Path) -> None:
    assert diagnose(config) == []


def test_a_config_that_cannot_be_used_is_found_with_its_place(config: Path) -> None:
    config.write_text(CONFIG + "worker = 2\n")
    found = sole(diagnose(config), Check.CONFIG)
    assert f"{config}:6:1: service.web.worker is not a known key" in found["what"]
    assert found["fix"] == 'did you mean "workers"?'


def test_a_config_that_is_not_there_is_found(config: Path) -> None:
    config.unlink()
    assert "No such file" in sole(diagnose(config), Check.CONFIG)["what"]


def test_a_command_that_is_not_there_is_found(config: Path) -> None:
    write(config, ["no-such-server"])
    found = sole(diagnose(config), Check.COMMAND)
    assert found["subject"] == "service.web"
    assert "no-such-server is not in the PATH" in found["what"]
    assert found["fix"] == "install it, give its full path, or set PATH in env"


@pytest.mark.parametrize(
    ("key", "what", "fix"),
    [
        ('cwd = "nowhere"', "there is no", "create it, or correct cwd"),
        ('user = "nobody-of-that-name"', "there is no such user", "add the user"),
        (
            'group = "no-group-of-that-name"',
            "there is no such group",
            "add the group, or correct it",
        ),
    ],
)
def test_a_directory_or_account_that_is_not_there_is_found(
    config: Path, key: str, what: str, fix: str
) -> None:
    config.write_text(CONFIG + key)
    found = sole(diagnose(config), Check.COMMAND)
    assert what in found["what"]
    assert found["fix"] == fix


@pytest.mark.parametrize(
    ("command", "what", "why", "fix"),
    [
        (["uvicorn", "--reload", "a:a"], "uvicorn --reload", "it restarts", "leave it out"),
        (["uvicorn", "--workers=2", "a:a"], "uvicorn --workers", "its own manager", "use the key"),
        (["hypercorn", "-w", "2", "a:a"], "hypercorn --workers", "the first", "use the key"),
        (["gunicorn", "--reuse-port", "a:a"], "gunicorn --reuse-port", "it binds", "leave it out"),
        (["uwsgi", "--shutdown-sockets"], "uwsgi --shutdown-sockets", "it shuts", "leave it out"),
        (["uwsgi", "--http", ":80"], "uwsgi --http, --socket", "they open", "leave them out"),
    ],
)
def test_a_flag_that_loses_requests_is_found(
    config: Path, command: list[str], what: str, why: str, fix: str
) -> None:
    write(config, command)
    found = sole(diagnose(config), Check.FLAGS)
    assert found["what"].startswith(f"service.web.command: {what}")
    assert found["why"].startswith(why)
    assert found["fix"].startswith(fix)


@pytest.mark.parametrize(
    ("command", "env", "option"),
    [
        (["uvicorn", "--timeout-graceful-shutdown", "60", "a:a"], "", "--timeout-graceful-sh"),
        (["uvicorn", "a:a"], "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN", "UVICORN_TIMEOUT_GRACEFUL_SH"),
        (["gunicorn", "--graceful-timeout=60", "a:a"], "", "--graceful-timeout"),
        (["gunicorn", "a:a"], "GUNICORN_CMD_ARGS", "GUNICORN_CMD_ARGS --graceful-timeout"),
        (["hypercorn", "--graceful-timeout", "60", "a:a"], "", "--graceful-timeout"),
        (["granian", "--workers-kill-timeout", "60", "a:a"], "", "--workers-kill-timeout"),
        (["uwsgi", "--worker-reload-mercy=60"], "", "--worker-reload-mercy"),
    ],
)
def test_a_server_that_may_drain_longer_than_it_is_let_is_found(
    config: Path, command: list[str], env: str, option: str
) -> None:
    value = "--graceful-timeout 60" if env == "GUNICORN_CMD_ARGS" else "60"
    write(config, command, *([f'env.{env} = "{value}"'] if env else []))
    found = sole(diagnose(config), Check.GRACEFUL_TIMEOUT)
    assert f"may take 60 s to end ({option}" in found["what"]
    assert found["fix"].startswith("set drain_timeout above 60 s, or lower")
    write(config, command, *([f'env.{env} = "{value}"'] if env else []), "drain_timeout = 60")
    assert diagnose(config) == []


@pytest.mark.parametrize(
    ("command", "file", "text", "setting"),
    [
        (["gunicorn", "a:a"], "gunicorn.conf.py", "graceful_timeout = 60", "graceful_timeout"),
        (["uwsgi", "x.ini"], "x.ini", "[uwsgi]\nreload-mercy = 60", "reload-mercy"),
        (["gunicorn", "a:a"], "gunicorn.conf.py", "graceful_timeout = 30", ""),
        (["gunicorn", "a:a"], "gunicorn.conf.py", "graceful_timeout = f()", ""),
        (["gunicorn", "a:a"], "gunicorn.conf.py", "graceful_timeout = (", ""),
        (["gunicorn", "a:a"], "gunicorn.conf.py", "x" * 2_000_000, ""),
    ],
)
def test_a_patience_in_a_servers_own_config_is_compared_with_ours(
    config: Path, command: list[str], file: str, text: str, setting: str
) -> None:
    write(config, command)
    config.with_name(file).write_text(text)
    found = diagnose(config)
    if setting:
        told = sole(found, Check.GRACEFUL_TIMEOUT)["what"]
        assert f"may take 60 s to end ({setting} in {file})" in told
    else:
        assert found == []


NGINX = """
# the shop
http { upstream other { server 10.0.0.1:80; keepalive 8; }
  upstream shop {
    server "127.0.0.1:PORT" max_fails=0; # keepalive 0;
    keepalive 32;
    keepalive_timeout 1m15s;
  }
  server { location / { proxy_pass http://shop; } }
}"""
HAPROXY = """
defaults
  timeout client 30s
  timeout http-keep-alive 10s
frontend www
  bind :80
backend shop   # here
  server one localhost:PORT check
"""


@pytest.mark.parametrize(
    ("command", "proxy", "idle"),
    [
        ("uvicorn a:a", NGINX, "75 s (keepalive_timeout), and service.web for 5 s"),
        ("uvicorn --timeout-keep-alive 90 a:a", NGINX, ""),
        ("gunicorn --keep-alive=70 a:a", NGINX.replace("1m15s", "75"), "75 s"),
        ("gunicorn a:a", NGINX.replace("    keepalive_timeout 1m15s;\n", ""), "60 s"),
        ("gunicorn a:a", NGINX.replace("keepalive 32;", "keepalive 0;"), "elsewhere"),
        ("hypercorn a:a", HAPROXY, "10 s (timeout http-keep-alive), and service.web for 5 s"),
        ("hypercorn a:a", HAPROXY.replace("  timeout http-keep-alive 10s\n", ""),
         "30 s (timeout client)"),
        ("hypercorn a:a", HAPROXY.replace("10s", "4000"), ""),
        ("hypercorn a:a", HAPROXY.replace("PORT", "9"), "elsewhere"),
        ("uvicorn a:a", "", "elsewhere"),
        ("granian a:a", NGINX, ""),
        ("uvicorn a:a", NGINX.replace("  server { loc", "server {\nlisten 80;\nloc"), "75 s"),
        ("uvicorn a:a", "upstream {" * 9000 + "}{;'" * 9000, "elsewhere"),
    ],
)  # fmt: skip
def test_a_proxy_that_keeps_connections_longer_than_the_server_is_found(
    config: Path, command: str, proxy: str, idle: str
) -> None:
    port = next(number for number in range(20000, 30000) if is_free(number))
    write(config, command.split())
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    path = config.with_name("proxy.conf")
    path.write_text(proxy.replace("PORT", str(port)))
    found = diagnose(config, "--proxy", str(path))
    if not idle:
        assert found == []
    elif idle == "elsewhere":
        sole(found, Check.PROXY_ELSEWHERE)
    else:
        told = sole(found, Check.PROXY_KEEP_ALIVE)
        assert idle in told["what"]


@pytest.mark.parametrize(
    ("version", "keeps"), [("1.29.6", False), ("1.29.7", True), ("1.30.0", True), ("", True)]
)
def test_an_nginx_that_keeps_connections_without_being_told_is_found(
    version: str, keeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if version:
        program = tmp_path / "nginx"
        program.write_text(f"#!/bin/sh\necho nginx version: nginx/{version} >&2\n")
        program.chmod(0o755)
    text = '[listen]\nhttp = "tcp://127.0.0.1:80"\n[service.web]\ncommand = ["gunicorn", "a:a"]\n'
    path = tmp_path / "proxy.conf"
    path.write_text("upstream shop { server 127.0.0.1:80; }")
    (one,) = proxy.examine(parse(text.encode(), file="sockmgr.toml"), path)
    assert one.check is (Check.PROXY_KEEP_ALIVE if keeps else Check.PROXY_ELSEWHERE)
    assert ("60 s (keepalive_timeout, by default from nginx 1.29.7 on)" in one.what) == keeps


def test_nginx_is_asked_once_for_its_version_however_many_upstreams_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program, asked = tmp_path / "nginx", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho asked >>{asked}\necho nginx version: nginx/1.30.0 >&2\n")
    program.chmod(0o755)
    path = tmp_path / "proxy.conf"
    path.write_text("upstream shop { server 127.0.0.1:80; }\n" * 9)
    text = b'[listen]\nhttp = "tcp://127.0.0.1:80"\n[service.web]\ncommand = ["gunicorn", "a:a"]\n'
    assert len(list(proxy.examine(parse(text, file="sockmgr.toml"), path))) == 9
    assert asked.read_text() == "asked\n"


def test_the_keep_alive_of_an_app_and_of_a_gunicorn_conf_are_compared_too(config: Path) -> None:
    path = config.with_name("proxy.conf")
    path.write_text("upstream shop { server unix:/run/shop.sock; keepalive 9; }")
    sock = f'[listen]\nhttp = "unix://{config.parent}/web.sock?mode=0666"\n'
    path.write_text(path.read_text().replace("/run/shop.sock", f"{config.parent}/web.sock"))
    app = f'{sock}[service.web]\napp = "json:loads"\nhttp.trusted_proxies = ["*"]\n'
    config.write_text(app)
    found = sole(diagnose(config, "--proxy", str(path)), Check.PROXY_KEEP_ALIVE)
    assert found["fix"].startswith("set keep_alive under [service.web.http] above 60 s")
    config.write_text(f'{app}http.keep_alive = "61s"\ndrain_timeout = "90s"\n')
    assert diagnose(config, "--proxy", str(path)) == []
    config.write_text(f'{sock}[service.web]\ncommand = ["gunicorn", "a:a"]\n')
    config.with_name("gunicorn.conf.py").write_text("keepalive = 75\n")
    assert diagnose(config, "--proxy", str(path)) == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [("missing", "No such file"), ("directory", "it is no regular file"),
     ("100 MB", "File too large"), ("not UTF-8", "it is not UTF-8")],
)  # fmt: skip
def test_a_proxys_config_that_cannot_be_read_is_named(config: Path, kind: str, said: str) -> None:
    path = config.with_name("proxy.conf")
    match kind:
        case "directory":
            path.mkdir()
        case "100 MB":
            path.touch()
            os.truncate(path, 100_000_000)
        case "not UTF-8":
            path.write_bytes(b"\xff")
    result = sockmgr("doctor", "-c", str(config), "--proxy", str(path))
    assert (result.exit_code, f"cannot read {path}: {said}" in result.stderr) == (1, True)


def test_a_drain_too_short_for_idle_connections_is_found(config: Path) -> None:
    head = CONFIG.removesuffix(SERVER) + '[service.web]\napp = "shop:app"\n'
    config.write_text(head + "drain_timeout = 6\n")
    assert diagnose(config) == [], "they are given to other workers"
    head += "http.migrate = false\n"
    config.write_text(head + "drain_timeout = 6\n")
    found = sole(diagnose(config), Check.SHORT_DRAIN)
    assert (
        "drain_timeout = 6 s leaves 4.5 s to idle connections, and keep_alive = 5 s"
        in (found["what"])
    )
    assert found["fix"] == "set drain_timeout to 6.67 s or more"
    config.write_text(head + "drain_timeout = 6.67\n")
    assert diagnose(config) == []
    config.write_text(head + 'http.keep_alive = "75s"\n')
    assert sole(diagnose(config), Check.SHORT_DRAIN)["fix"].endswith("80 s or more")


@pytest.mark.parametrize(
    ("proxies", "noted"),
    [("", True), ('trusted_proxies = ["10.0.0.1"]', True),
     ('trusted_proxies = ["*"]', False), ("trusted_proxies = []", False)],
)  # fmt: skip
def test_an_application_that_believes_no_proxy_behind_a_unix_socket_is_noted(
    config: Path, tmp_path: Path, proxies: str, *, noted: bool
) -> None:
    config.write_text(
        f'[listen]\nhttp = "unix://{tmp_path}/web.sock?mode=0666"\n'
        f'[service.web]\napp = "json:loads"\n[service.web.http]\n{proxies}\n'
    )
    found = [one for one in diagnose(config) if one["check"] == Check.PROXY_UNBELIEVED.label]
    assert bool(found) == noted
    if noted:
        assert 'trusted_proxies = ["*"]' in found[0]["fix"]


def test_a_ready_file_that_cannot_be_made_is_found(config: Path) -> None:
    text = config.read_text()
    config.write_text(f'ready_file = "{config.parent}/up"\n{text}')
    assert diagnose(config) == []
    config.write_text(f'ready_file = "{config.parent}/nowhere/up"\n{text}')
    assert f"{config.parent}/nowhere" in sole(diagnose(config), Check.READY_FILE)["what"]


def test_readiness_that_is_a_guess_is_noted(config: Path) -> None:
    config.write_text(CONFIG + "ready = { delay = 2 }\n")
    assert "a delay of 2 s" in sole(diagnose(config), Check.READY_GUESS)["what"]


def test_a_delay_of_what_has_no_listener_is_no_finding(config: Path) -> None:
    config.write_text(CONFIG + "listen = []\n[service.more]\ncommand = ['sleep', '9']\n")
    assert [one["check"] for one in diagnose(config)] == ["config"]  # nobody uses the listener
    config.write_text(f"{SERVER}ready = {{ delay = 2 }}\n")
    assert diagnose(config) == []


@pytest.mark.parametrize(
    "key",
    [
        'hooks.before = ["./there"]',
        'hooks.worker_ended = ["./there"]',
        'ready = { exec = ["./there"] }',
        'rollout.canary = { share = "10%", check = ["./there"] }',
    ],
)
def test_programs_of_a_rollout_that_are_not_there_or_cannot_be_run_are_found(
    config: Path, key: str
) -> None:
    config.write_text(f"{CONFIG}workers = 10\n{key}\n")
    found = sole(diagnose(config), Check.COMMAND)
    assert key.split(maxsplit=1)[0] in found["what"]
    assert found["what"].endswith("there does not exist")
    program = config.with_name("there")
    program.write_text("#!/bin/sh\n")
    assert sole(diagnose(config), Check.COMMAND)["fix"] == f"chmod +x {program}"
    program.chmod(0o755)
    assert diagnose(config) == []


def test_a_release_that_runs_without_a_name_is_found_when_there_was_time_for_one() -> None:
    text = CONFIG + 'release = ["git", "describe"]\n'
    config = parse(text.encode(), file="shop.toml")

    def found(**status: Any) -> list[Check]:
        worker = WorkerStatus(slot=1, generation=3, pid=9, state="ready", rss=0, age=60.0)
        service = ServiceStatus(generation=3, state="serving", workers=(worker,))
        return [f.check for f in unnamed({"web": replace(service, **status)}, config)]

    assert found() == [Check.RELEASE_UNNAMED]
    assert found(release="v1") == found(generation=4) == found(workers=()) == []


@pytest.mark.parametrize("example", ["asgi", "wsgi", "node", "plain"])
def test_an_example_has_no_fault(config: Path, example: str) -> None:
    directory = ROOT / "examples" / example
    text = (directory / "sockmgr.toml").read_text()
    config.write_text(f'{on_a_free_port(text)}cwd = "{directory}"\n')
    assert diagnose(config) == []


def test_no_config_of_the_readme_has_a_fault(config: Path, tmp_path: Path) -> None:
    texts = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    assert texts
    for text in texts:
        config.write_text(on_a_free_port(text).replace("/srv/shop/current", str(tmp_path)))
        assert diagnose(config) == []


def on_a_free_port(text: str) -> str:
    """Return a config that listens where nobody does, below the ports of outgoing connections."""
    assert ":8000" in text
    port = next(number for number in range(20000, 30000) if is_free(number))
    return text.replace(":8000", f":{port}")


def test_an_environment_of_another_release_is_found(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "releases" / "1" / ".venv"
    old.mkdir(parents=True)
    (tmp_path / "releases" / "2").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "2")
    write(config, ["sleep", "{http}"], f'cwd = "{tmp_path / "current"}"')
    monkeypatch.setenv("VIRTUAL_ENV", str(old))
    found = sole(diagnose(config), Check.OTHER_RELEASE)
    assert found["what"].startswith(f"service.web: VIRTUAL_ENV leads to {old}, which is not of")

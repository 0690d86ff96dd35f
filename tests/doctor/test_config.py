"""The doctor finds each fault that is planted in a config, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sockmgr.doctor.finding import Check
from tests.doctor.diagnosis import CONFIG, SERVER, diagnose, is_free, sole
from tests.e2e.apps import ROOT


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
        ('group = "no-group-of-that-name"', "there is no such group", "add the group"),
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


def test_a_drain_too_short_for_idle_connections_is_found(config: Path) -> None:
    head = CONFIG.removesuffix(SERVER) + '[service.web]\napp = "shop:app"\n'
    config.write_text(head + "drain_timeout = 6\n")
    found = sole(diagnose(config), Check.SHORT_DRAIN)
    assert (
        "drain_timeout = 6 s leaves 4.5 s to idle connections, and keep_alive = 5 s"
        in (found["what"])
    )
    assert found["fix"] == "set drain_timeout to 6.67 s or more"
    config.write_text(head + "drain_timeout = 6.67\n")
    assert diagnose(config) == []
    config.write_text(head + 'http = { keep_alive = "75s" }\n')
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


def test_readiness_that_is_a_guess_is_noted(config: Path) -> None:
    config.write_text(CONFIG + "ready = { delay = 2 }\n")
    assert "a delay of 2 s" in sole(diagnose(config), Check.READY_GUESS)["what"]


def test_a_delay_of_what_has_no_listener_is_no_finding(config: Path) -> None:
    config.write_text(CONFIG + "listen = []\n[service.more]\ncommand = ['sleep', '9']\n")
    assert [one["check"] for one in diagnose(config)] == ["config"]  # nobody uses the listener
    config.write_text(f"{SERVER}ready = {{ delay = 2 }}\n")
    assert diagnose(config) == []


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

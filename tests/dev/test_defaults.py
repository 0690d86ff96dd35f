"""What a production config means in development, and what stands in for broken code."""

from __future__ import annotations

import pytest

from sockmgr.config.config import Config, parse
from sockmgr.config.spec import SURGE_ALL, Surge
from sockmgr.dev.defaults import for_development, shows_errors, stand_in

PRODUCTION = """\
[listen]
http = "tcp://127.0.0.1:8000"
[service.web]
command = ["uvicorn", "app:app"]
workers = 4
drain_timeout = 30
max_age = "24h"
max_rss = "512M"
max_cpu_time = "1h"
when_down = "30s"
ready_timeout = 20
env = { DEBUG = "0" }
[service.web.rollout]
surge = 1
probation = "5s"
"""


def production(more: str = "") -> Config:
    return parse((PRODUCTION + more).encode(), file="sockmgr.toml")


def test_production_values_make_no_save_slow() -> None:
    (service,) = for_development(production(), typed=(), env={}).services
    assert (service.workers, service.drain_timeout, service.max_age) == (1, 2.0, None)
    assert (service.max_rss, service.max_requests, service.max_cpu_time) == (None, None, None)
    assert service.rollout.surge == SURGE_ALL
    assert service.rollout.probation < 0.2
    assert service.rollout.max_failed_starts == 1
    assert service.ready_timeout == 20
    assert service.http.keep_alive < 1
    assert service.hang_timeout == 0
    assert service.when_down is None


def test_code_that_was_saved_gets_all_requests_at_once_and_may_stand_in_a_debugger() -> None:
    text = PRODUCTION.replace("workers", 'accept = "per-worker"\nhealthy = { http = "/" }\nworkers')
    text += 'canary = { share = "10%", for = "1m" }\nwarmup = ["/"]\n'
    config = parse(text.replace("surge = 1\n", "").encode(), file="sockmgr.toml")
    assert config.services[0].healthy
    (service,) = for_development(config, typed=(), env={}).services
    assert service.healthy is None
    assert service.rollout.canary is None
    assert service.rollout.warmup == ()


def test_what_was_typed_for_dev_stands() -> None:
    typed = ("workers", "drain_timeout", "surge", "probation")
    (service,) = for_development(production(), typed=typed, env={}).services
    assert (service.workers, service.drain_timeout) == (4, 30)
    assert service.rollout.surge == Surge(amount=1)
    assert service.rollout.probation == 5


def test_a_shorter_drain_and_an_exclusive_service_stay() -> None:
    text = PRODUCTION.replace("drain_timeout = 30", "drain_timeout = 0")
    config = parse(f"{text}exclusive = true\n".encode(), file="x")
    (service,) = for_development(config, typed=(), env={}).services
    assert service.drain_timeout == 0
    assert service.rollout.exclusive


def test_the_configs_own_environment_wins() -> None:
    env = {"DEBUG": "1", "PYTHONUNBUFFERED": "1"}
    (service,) = for_development(production(), typed=(), env=env).services
    assert dict(service.env) == {"DEBUG": "0", "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize(
    ("name", "address", "preset", "wanted", "shown"),
    [
        ("http", "tcp://127.0.0.1:1", "none", None, True),
        ("main", "tcp://127.0.0.1:1", "uvicorn", None, True),
        ("main", "unix:///run/x", "gunicorn", None, True),
        ("main", "tcp://127.0.0.1:1", "none", None, False),
        ("main", "tcp://127.0.0.1:1", "none", True, True),
        ("http", "tcp://127.0.0.1:1", "uvicorn", False, False),
        ("http", "udp://127.0.0.1:1", "none", True, False),
    ],
)
def test_errors_are_shown_where_http_is_spoken(
    name: str, address: str, preset: str, wanted: bool | None, shown: bool
) -> None:
    text = f'[listen]\n{name} = "{address}"\n[service.web]\ncommand = ["x"]\n'
    config = parse(text.encode(), file="x")
    assert shows_errors(config.services[0], config.listens(), wanted, preset) is shown


def test_a_service_without_listeners_has_no_stand_in() -> None:
    config = parse(b'[service.web]\ncommand = ["x"]\n', file="x")
    assert not shows_errors(config.services[0], {}, True, "uvicorn")


def test_the_stand_in_has_the_listeners_of_the_service_and_nothing_of_its_code() -> None:
    (service,) = production().services
    found = stand_in(service, ("python", "stand_in.py"), {"MARK": "1"})
    assert found.listen == service.listen
    assert (found.name, found.command, found.env) == (
        "web",
        ("python", "stand_in.py"),
        (("MARK", "1"),),
    )

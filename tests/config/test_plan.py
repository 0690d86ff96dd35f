"""What a change of the config takes, and how it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import fields, replace

from sockmgr.api.types import Change, Effect, Kind, Plan
from sockmgr.config import plan
from sockmgr.config.app_keys import Http
from sockmgr.config.config import Config, Dev, ServiceConfig, parse
from sockmgr.config.spec import (
    Accept,
    Address,
    Delay,
    Listen,
    Policy,
    Rollout,
    Scheme,
    Surge,
)
from sockmgr.errors import ConfigError

HTTP = Listen(name="http", address=Address(scheme=Scheme.TCP, host="::1", port=80))
ADMIN = Listen(name="admin", address=Address(scheme=Scheme.UNIX, path="/run/a"))
WEB = ServiceConfig(name="web", command=("serve",), listen=("http",), workers=4)
JOB = ServiceConfig(name="job", command=("job",))
OLD = Config(name="shop", listen=(HTTP,), services=(WEB,))


def texts(old: Config, new: Config) -> list[str]:
    return [change.text for change in plan.diff(old, new)]


def web(**keys: object) -> Config:
    return replace(OLD, services=(replace(WEB, **keys),))


def test_nothing_changes_from_a_config_to_itself() -> None:
    assert plan.diff(OLD, OLD) == ()


def test_a_change_has_a_kind_a_path_an_effect_and_a_line() -> None:
    assert plan.diff(OLD, web(workers=6)) == (
        Change(
            kind=Kind.CHANGE,
            path="service.web.workers",
            effect=Effect.SCALE,
            old="4",
            new="6",
            text="~ service.web.workers 4 → 6: no restart",
        ),
    )


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"command": ("b", "x y")}, '! service.web.command ["serve"] → ["b", "x y"]: rolling'),
        ({"cwd": "/srv"}, "! service.web.cwd default → /srv: rolling reload"),
        ({"umask": 0o27}, "! service.web.umask default → 027: rolling reload"),
        ({"inherit_env": False}, "! service.web.inherit_env true → false: rolling reload"),
        ({"ready": Delay(seconds=2)}, "~ service.web.ready accepting → delay of 2 s: no restart"),
        ({"drain_timeout": 9.5}, "~ service.web.drain_timeout 30 s → 9.5 s: no restart"),
        ({"stop_signal": 3}, "~ service.web.stop_signal default → QUIT: no restart"),
        (
            {"rollout": Rollout(start_concurrency=0, surge=Surge(amount=1))},
            "~ service.web.rollout.surge all → 1: no restart",
        ),
    ],
)
def test_a_changed_key_is_told_with_both_values_as_they_are_written(
    keys: dict[str, object], text: str
) -> None:
    (line,) = texts(OLD, web(**keys))
    assert line.startswith(text)


def test_the_environment_is_told_by_names_since_values_may_be_secret() -> None:
    old = web(env=(("A", "1"), ("TOKEN", "s3cret"), ("GONE", "x")))
    new = web(env=(("A", "1"), ("TOKEN", "other"), ("MORE", "y")))
    assert texts(old, new) == ["! service.web.env (GONE, MORE, TOKEN): rolling reload"]
    (change,) = plan.diff(old, new)
    assert (change.old, change.new, change.effect) == (None, None, Effect.RELOAD)


def test_services_and_listeners_that_come_and_go_are_told_listeners_first() -> None:
    new = Config(name="shop", listen=(ADMIN,), services=(replace(JOB, listen=("admin",)),))
    assert texts(OLD, new) == [
        "- listen.http tcp://[::1]:80: closed when nothing waits there any more",
        "+ listen.admin unix:///run/a: opened before any worker starts",
        "- service.web: drained and stopped",
        "+ service.job: 1 worker started",
    ]
    effects = [change.effect for change in plan.diff(OLD, new)]
    assert effects == [Effect.LISTENER, Effect.LISTENER, Effect.STOP, Effect.START]


def test_a_listener_that_moves_is_opened_first_and_takes_new_workers() -> None:
    moved = replace(HTTP, address=replace(HTTP.address, port=81))
    new = replace(OLD, listen=(moved,))
    (change,) = plan.diff(OLD, new)
    assert change.text.startswith("! listen.http tcp://[::1]:80 → tcp://[::1]:81: the new address")


def test_a_backlog_or_mode_is_set_on_the_open_socket_without_new_workers() -> None:
    old = replace(OLD, listen=(ADMIN,), services=(replace(WEB, listen=("admin",)),))
    new = replace(old, listen=(replace(ADMIN, backlog=9, mode=0o600),))
    assert texts(old, new) == [
        "~ listen.admin.backlog 4096 → 9: set on the open socket",
        "~ listen.admin.mode default → 0600: set on the open socket",
    ]


def test_each_key_either_replaces_the_workers_or_is_known_not_to() -> None:
    values = {
        "command": ("other",), "app": "a:b", "interface": "wsgi", "http": Http(threads=1),
        "python": "/p", "preload": True, "listen": (), "workers": 9, "cwd": "/",
        "env": (("A", "1"),),
        "inherit_env": False, "umask": 0, "user": "u", "group": "g", "limits": (("core", 0, 0),),
        "listen_pid": False, "ready": Delay(seconds=1), "ready_timeout": 1.0, "stop_signal": 2,
        "drain_timeout": 1.0, "max_age": 1.0, "hang_timeout": 1.0, "preset": "none",
        "rollout": Rollout(exclusive=True), "accept": Accept.PER_WORKER,
        "policy": Policy.LEAST_CONNECTIONS, "max_connections": 9,
    }  # fmt: skip
    assert set(values) == {field.name for field in fields(ServiceConfig)} - {"name"}
    kept = {
        key
        for key, value in values.items()
        if all(change.effect is not Effect.RELOAD for change in plan.diff(OLD, web(**{key: value})))
    }
    assert kept == {
        "workers", "ready", "ready_timeout", "stop_signal", "drain_timeout", "max_age", "rollout",
    }  # fmt: skip


def test_another_way_of_accepting_takes_a_rolling_reload() -> None:
    assert texts(OLD, web(accept=Accept.PER_WORKER)) == [
        "! service.web.accept shared → per-worker: rolling reload"
    ]


def test_a_service_that_is_added_needs_a_generation_and_the_others_do_not() -> None:
    (change,) = plan.diff(OLD, replace(OLD, services=(WEB, JOB)))
    assert change.effect is Effect.START


def test_the_name_and_the_dev_table_change_nothing_that_runs() -> None:
    changes = plan.diff(OLD, replace(OLD, name="other", dev=Dev(watch=("a",))))
    assert [(change.path, change.effect) for change in changes] == [
        ("name", Effect.NONE),
        ("dev", Effect.NONE),
    ]


# --- Against a config that somebody asks about ----------------------------------------------------

TEXT = '[listen]\nhttp = "tcp://[::1]:80"\n[service.web]\ncommand = ["serve"]\nworkers = %d\n'


def asked(text: str | None, own: Callable[[], Config] = lambda: OLD) -> Plan:
    return plan.plan(OLD, own, text, "shop.toml")


def test_without_a_text_a_plan_is_what_a_reload_would_change() -> None:
    found = asked(None, lambda: web(workers=6))
    assert [change.new for change in found.changes] == ["6"]
    assert found.applies


def test_a_plan_of_a_text_tells_whether_a_reload_would_read_the_same() -> None:
    text = f'name = "shop"\n{TEXT % 6}'
    assert asked(text).changes == asked(None, lambda: web(workers=6)).changes
    assert not asked(text).applies
    assert asked(text, lambda: parse(text.encode(), file="its own")).applies


def test_a_plan_of_a_text_needs_nothing_of_the_file_that_a_reload_reads() -> None:
    def broken() -> Config:
        raise ConfigError("gone")

    assert not asked(TEXT % 4, broken).applies
    for text in (None, "what is this"):
        with pytest.raises(ConfigError):
            asked(text, broken)

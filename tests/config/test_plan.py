"""What a change of the config takes, and how it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import fields, replace

from sockmgr.api.types import Change, Effect, Kind, Plan
from sockmgr.config import plan
from sockmgr.config.app_keys import Http
from sockmgr.config.config import Config, Dev, ServiceConfig, parse
from sockmgr.config.hooks import Hook, Hooks
from sockmgr.config.manager_keys import Control, Format, Logs
from sockmgr.config.outside import Outside
from sockmgr.config.probe import Healthy, TcpProbe
from sockmgr.config.resources import Resources
from sockmgr.config.spec import (
    Accept,
    Address,
    Delay,
    Listen,
    Policy,
    ReleaseName,
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
            text="~ service.web.workers 4 → 6: needs no new workers",
        ),
    )


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"command": ("b", "x y")}, '! service.web.command ["serve"] → ["b", "x y"]: rolling'),
        ({"cwd": "/srv"}, "! service.web.cwd default → /srv: rolling reload"),
        ({"workers": 0}, "~ service.web.workers 4 → auto: needs no new workers"),
        ({"umask": 0o27}, "! service.web.umask default → 027: rolling reload"),
        ({"inherit_env": False}, "! service.web.inherit_env true → false: rolling reload"),
        ({"unbuffered": False}, "! service.web.unbuffered true → false: rolling reload"),
        ({"venv": ""}, "! service.web.venv default → none: rolling reload"),
        (
            {"ready": Delay(seconds=2)},
            "~ service.web.ready accepting → delay of 2 s: needs no new workers",
        ),
        ({"drain_timeout": 9.5}, "~ service.web.drain_timeout 30 s → 9.5 s: needs no new workers"),
        ({"stop_signal": 3}, "~ service.web.stop_signal default → QUIT: needs no new workers"),
        (
            {"rollout": Rollout(start_concurrency=0, surge=Surge(amount=1))},
            "~ service.web.rollout.surge all → 1: needs no new workers",
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


def test_a_service_is_told_to_have_as_many_workers_as_there_are_processors() -> None:
    new = replace(OLD, services=(*OLD.services, replace(JOB, workers=0)))
    assert texts(OLD, new) == ["+ service.job: a worker a processor started"]


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
        "python": "/p", "preload": True, "listen": (), "after": ("job",), "workers": 9, "cwd": "/",
        "env": (("A", "1"),),
        "inherit_env": False, "unbuffered": False, "venv": "", "umask": 0, "user": "u",
        "group": "g", "limits": (("core", 0, 0),),
        "listen_pid": False, "ready": Delay(seconds=1), "ready_timeout": 1.0, "stop_signal": 2,
        "drain_timeout": 1.0, "max_age": 1.0, "hang_timeout": 1.0,
        "max_rss": 1 << 30, "max_requests": 9, "max_cpu_time": 1.0,
        "when_down": 1.0, "preset": "none",
        "rollout": Rollout(exclusive=True), "accept": Accept.PER_WORKER,
        "policy": Policy.LEAST_CONNECTIONS, "max_connections": 9,
        "hooks": Hooks(ready=Hook(argv=("a",))), "release": ReleaseName(file="REVISION"),
        "healthy": Healthy(probe=TcpProbe()), "prometheus_multiproc": True,
        "resources": Resources(pids_max=9),
    }  # fmt: skip
    assert set(values) == {field.name for field in fields(ServiceConfig)} - {"name"}
    kept = {
        key
        for key, value in values.items()
        if all(change.effect is not Effect.RELOAD for change in plan.diff(OLD, web(**{key: value})))
    }
    assert kept == {
        "after", "hooks", "workers", "ready", "ready_timeout", "healthy", "stop_signal",
        "drain_timeout",
        "max_age", "max_rss", "max_requests", "max_cpu_time", "rollout", "release", "when_down",
    }  # fmt: skip


def test_the_name_of_a_release_is_shown_as_it_is_written() -> None:
    file, command = ReleaseName(file="REVISION"), ReleaseName(argv=("git", "describe"))
    assert texts(web(release=file), web(release=command)) == [
        '~ service.web.release {"file": "REVISION"} → ["git", "describe"]: needs no new workers'
    ]


def test_a_limit_of_memory_is_shown_as_it_is_written() -> None:
    assert texts(OLD, web(max_rss=512 << 20)) == [
        "~ service.web.max_rss default → 512M: needs no new workers"
    ]


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


def test_who_may_talk_to_the_manager_changes_without_new_workers() -> None:
    now = Control(group="ops", mode=0o666, readers="eyes", methods=("reload",))
    new = replace(OLD, control=now)
    assert texts(OLD, new) == [
        "~ control.group default → ops: needs no new workers",
        "~ control.mode default → 0666: needs no new workers",
        "~ control.readers default → eyes: needs no new workers",
        '~ control.methods default → ["reload"]: needs no new workers',
    ]
    assert plan.accepted(OLD, new, ()).control == now


def test_what_becomes_of_what_workers_print_changes_with_the_next_manager() -> None:
    new = replace(OLD, logs=Logs(format=Format.JSON, split=True))
    assert texts(OLD, new) == [
        "~ logs.format prefix → json: from the next start of the manager",
        "~ logs.split false → true: from the next start of the manager",
    ]
    assert plan.accepted(OLD, new, {"web"}).logs == new.logs


# --- Against a config that somebody asks about ----------------------------------------------------

TEXT = '[listen]\nhttp = "tcp://[::1]:80"\n[service.web]\ncommand = ["serve"]\nworkers = %d\n'


def asked(text: str | None, own: Callable[[], Config] = lambda: OLD) -> Plan:
    return plan.plan(OLD, own, text, "shop.toml")


def test_without_a_text_a_plan_is_what_a_reload_would_change() -> None:
    found = asked(None, lambda: web(workers=6))
    assert [change.new for change in found.changes] == ["6"]
    assert found.applies


def test_a_directory_that_is_written_as_before_and_leads_elsewhere_is_a_change() -> None:
    def told(new: Config, rollbacks: dict[str, int]) -> list[str]:
        standing = plan.Standing((), rollbacks, lambda _: ("/r/1", "/r/2"))
        found = plan.plan(OLD, lambda: new, None, "", standing=standing)
        return [change.text for change in found.changes]

    assert told(OLD, {}) == ["! release.web /r/1 → /r/2: rolling reload"]
    assert told(web(cwd="/srv"), {}) == ["! service.web.cwd default → /srv: rolling reload"]
    assert told(OLD, {"web": 3}) == ["! service.web rollback to 3 → this config: rolling reload"]


def test_a_plan_of_a_text_tells_whether_a_reload_would_read_the_same() -> None:
    text = f'name = "shop"\n{TEXT % 6}'
    assert asked(text).changes == asked(None, lambda: web(workers=6)).changes
    assert not asked(text).applies
    assert asked(text, lambda: parse(text.encode(), file="its own")).applies


def test_a_plan_is_refused_of_what_a_reload_would_be_refused_and_of_no_other_text() -> None:
    def check(_: Config) -> None:
        raise ConfigError("not for us")

    standing = plan.Standing(check=check)
    for text in (None, f'name = "shop"\n{TEXT % 4}'):
        with pytest.raises(ConfigError, match="not for us"):
            plan.plan(OLD, lambda: OLD, text, "", standing=standing)
    assert not plan.plan(OLD, lambda: OLD, TEXT % 6, "", standing=standing).applies


def test_a_plan_of_a_text_needs_nothing_of_the_file_that_a_reload_reads() -> None:
    def broken() -> Config:
        raise ConfigError("gone")

    assert not asked(TEXT % 4, broken).applies
    for text in (None, "what is this"):
        with pytest.raises(ConfigError):
            asked(text, broken)


def test_what_comes_from_variables_is_told_by_their_names_and_not_by_its_value() -> None:
    text = """
[listen]
http = "tcp://[::1]:${PORT}"
[service.web]
command = ["serve", "--password", "${PASSWORD}", "--user=${USER_:-x}"]
workers = "${WORKERS:-4}"
umask = "022"
http.threads = 3
rollout.probation = "${PROBATION:-1}s"
""".replace("http.threads = 3\n", "")

    def read(**environ: str) -> Config:
        outside = Outside({"PORT": "80", "PASSWORD": "s3cret", **environ}, lambda _: b"")
        return parse(text.encode(), file="shop.toml", outside=outside)

    old = read()
    assert plan.diff(old, read()) == ()
    changed = read(PORT="81", PASSWORD="0ther", WORKERS="7", PROBATION="2")
    changes = plan.diff(old, replace(changed, services=(replace(changed.services[0], umask=0),)))
    assert [change.text for change in changes] == [
        "! listen.http (PORT): the new address is opened first, the old one closed after a "
        "rolling reload",
        "! service.web.command (PASSWORD, USER_): rolling reload",
        "~ service.web.workers (WORKERS): needs no new workers",
        "! service.web.umask 022 → 000: rolling reload",
        "~ service.web.rollout.probation (PROBATION): needs no new workers",
    ]
    assert [change.new for change in changes] == ["", "", "", "000", ""]
    assert plan.accepted(old, changed, {"web"}) == changed
    assert plan.changed(old, changed) == {"web"}


def test_what_an_aborted_reload_left_in_place_keeps_the_variables_that_it_came_from() -> None:
    def read(listen: str, web: str, job: str, **environ: str) -> Config:
        text = f"""
stop_delay = "${{{web}}}"
listen = {{ http = "tcp://[::1]:${{{listen}}}", more = "tcp://[::1]:9${{{listen}}}" }}
[service.web]
listen = ["http"]
command = ["serve", "${{{web}}}"]
[service.job]
listen = ["more"]
command = ["work", "${{{job}}}"]
"""
        return parse(text.encode(), file="x.toml", outside=Outside(environ, lambda _: b""))

    old = read("A", "B", "C", A="80", B="1", C="s3cret")
    new = read("D", "E", "F", D="81", E="2", F="0ther")
    kept = plan.accepted(old, new, ())
    assert dict(kept.variables) == {
        "stop_delay": "E", "listen.http": "A", "listen.more": "A",
        "service.web.command.1": "B", "service.job.command.1": "C",
    }  # fmt: skip
    half = plan.accepted(old, new, {"web"})
    assert dict(half.variables) == {
        "stop_delay": "E", "listen.http": "D", "listen.more": "A",
        "service.web.command.1": "E", "service.job.command.1": "C",
    }  # fmt: skip
    literal = replace(new.services[1], command=("work", "plain"))
    changes = plan.diff(half, replace(new, variables=(), services=(new.services[0], literal)))
    assert "! service.job.command (C): rolling reload" in [change.text for change in changes]
    assert plan.accepted(half, new, {"job"}) == new
    assert plan.accepted(old, old, ()) == old


def test_what_is_accepted_is_what_was_committed_with_its_listeners_and_no_others() -> None:
    """A service that was removed, one that was taken back, and one that was added."""
    both = replace(OLD, listen=(HTTP, ADMIN), services=(WEB, replace(JOB, listen=("admin",))))
    gone = replace(both, listen=(HTTP,), services=(WEB,))
    assert plan.accepted(both, gone, {"job"}) == gone
    assert plan.accepted(both, gone, ()) == both
    assert plan.accepted(OLD, both, {"job"}) == both
    assert plan.accepted(OLD, both, ()) == OLD


def test_a_service_is_changed_if_it_is_new_or_one_of_its_listeners_has_changed() -> None:
    other = replace(OLD, listen=(replace(HTTP, backlog=9),), services=(WEB, JOB))
    assert plan.changed(OLD, other) == {"web", "job"}
    assert plan.changed(other, OLD) == {"web"}
    assert plan.changed(OLD, OLD) == frozenset()


def test_whether_services_go_together_is_told_once_for_all() -> None:
    assert texts(OLD, replace(OLD, together=True)) == [
        "~ rollout.together false → true: needs no new workers"
    ]
    assert plan.accepted(OLD, replace(OLD, together=True), {"web"}).together


MORE = Listen(name="more", address=Address(scheme=Scheme.TCP, host="::1", port=81))
BOTH = replace(OLD, listen=(HTTP, MORE), services=(WEB, replace(JOB, listen=("more",))))


def test_listeners_that_swap_their_addresses_are_told_to_go_over_and_not_to_be_closed() -> None:
    swapped = (replace(HTTP, address=MORE.address), replace(MORE, address=HTTP.address))
    assert texts(BOTH, replace(BOTH, listen=swapped)) == [
        "! listen.http tcp://[::1]:80 → tcp://[::1]:81: taken over from listen.more, "
        "the old one goes on as listen.more",
        "! listen.more tcp://[::1]:81 → tcp://[::1]:80: taken over from listen.http, "
        "the old one goes on as listen.http",
    ]


def test_a_listener_that_gets_another_name_is_told_to_stay_open() -> None:
    new = replace(OLD, listen=(replace(HTTP, name="www", backlog=9),),
                  services=(replace(WEB, listen=("www",)),))  # fmt: skip
    assert texts(OLD, new) == [
        "~ listen.www http → www: stays open under its new name",
        "~ listen.www.backlog 4096 → 9: set on the open socket",
        '! service.web.listen ["http"] → ["www"]: rolling reload',
    ]


def test_a_listener_whose_address_another_one_gets_is_not_told_to_be_closed() -> None:
    moved = (replace(HTTP, address=MORE.address),)
    new = replace(BOTH, listen=moved, services=(WEB,))
    assert texts(BOTH, new)[:2] == [
        "- listen.more tcp://[::1]:81: goes on as listen.http",
        "! listen.http tcp://[::1]:80 → tcp://[::1]:81: taken over from listen.more, "
        "the old one closed after a rolling reload",
    ]


def test_what_cannot_be_set_is_told_to_have_no_effect() -> None:
    admin = replace(OLD, listen=(ADMIN,))
    locked = replace(admin, listen=(replace(ADMIN, mode=0o600, user="www", backlog=9),))
    found = plan.diff(admin, locked, not_ours=[ADMIN.address])
    assert [(change.path, change.effect) for change in found] == [
        ("listen.admin.backlog", Effect.LISTENER),
        ("listen.admin.mode", Effect.NONE),
        ("listen.admin.user", Effect.NONE),
    ]
    assert "SocketMode= of a unit" in found[1].text
    udp = Listen(name="dns", address=Address(scheme=Scheme.UDP, host="::1", port=53))
    (told,) = plan.diff(
        replace(OLD, listen=(udp,)), replace(OLD, listen=(replace(udp, backlog=9),))
    )
    assert told.effect is Effect.NONE
    assert told.text.endswith("no effect: UDP has no backlog")

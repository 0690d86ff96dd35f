"""The text of units: what the config says is in them, in the words of systemd."""

from __future__ import annotations

import pytest

from sockmgr.config.config import parse
from sockmgr.errors import ConfigError
from sockmgr.systemd.unit_lines import HARDENING
from sockmgr.systemd.units import Place, is_ours, units

PLACE = Place(program=("/opt/shop/bin/sockmgr",), config="/etc/sockmgr/shop.toml")


def written(
    listen: str = 'http = "tcp://127.0.0.1:8000"', service: str = "", place: Place = PLACE
) -> dict[str, str]:
    """Return the files for a config called shop with one service."""
    names = [line.split(" ")[0] for line in listen.splitlines() if line]
    text = (
        f'name = "shop"\n[listen]\n{listen}\n[service.web]\ncommand = ["server"]\n'
        f"listen = {names}\n{service}\n"
    )
    return units(parse(text.encode(), file="shop.toml"), place)


def having(**changes: object) -> Place:
    fields = {name: getattr(PLACE, name) for name in PLACE.__slots__}
    return Place(**{**fields, **changes})


def values(text: str, key: str) -> list[str]:
    """Return what a key is set to, each time."""
    return [line[len(key) + 1 :] for line in text.splitlines() if line.startswith(f"{key}=")]


# --- Sockets -------------------------------------------------------------------------------------


def test_a_socket_unit_keeps_its_name_when_another_listener_comes() -> None:
    assert list(written()) == ["shop-http.socket", "shop.service"]


def test_each_of_several_listeners_has_a_socket_unit_because_a_unit_has_one_name_for_all() -> None:
    files = written('http = "tcp://127.0.0.1:8000"\nadmin = "unix:///run/admin.sock"')
    assert list(files) == ["shop-http.socket", "shop-admin.socket", "shop.service"]
    assert values(files["shop-http.socket"], "FileDescriptorName") == ["http"]
    assert values(files["shop-admin.socket"], "FileDescriptorName") == ["admin"]
    assert values(files["shop-admin.socket"], "Service") == ["shop.service"]
    assert values(files["shop.service"], "Wants") == ["shop-http.socket shop-admin.socket"]
    assert values(files["shop.service"], "PartOf") == ["shop-http.socket shop-admin.socket"]


def test_a_tcp_listener_is_a_pool_of_a_queue_for_each_generation_that_may_live() -> None:
    text = written(service="[service.web.rollout]\nmax_draining = 2")["shop-http.socket"]
    assert values(text, "ListenStream") == ["127.0.0.1:8000"] * 5
    assert values(text, "ReusePort") == ["yes"]


def test_workers_that_have_a_queue_each_need_that_many_for_each_generation() -> None:
    each = 'workers = 3\naccept = "per-worker"\n[service.web.rollout]\nmax_draining = 2'
    text = written(service=each)["shop-http.socket"]
    assert values(text, "ListenStream") == ["127.0.0.1:8000"] * 5 * 3


def test_an_exclusive_service_needs_no_second_queue() -> None:
    text = written(service="[service.web.rollout]\nexclusive = true")["shop-http.socket"]
    assert values(text, "ListenStream") == ["127.0.0.1:8000"]
    assert not values(text, "ReusePort")


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("tcp://0.0.0.0:80", "ListenStream=0.0.0.0:80"),
        ("tcp://localhost:80", "ListenStream=127.0.0.1:80"),
        ("tcp://[::1]:80", "ListenStream=[::1]:80"),
        ("udp://127.0.0.1:53", "ListenDatagram=127.0.0.1:53"),
        ("unix:///run/100%.sock", "ListenStream=/run/100%%.sock"),
        ("unix-abstract:shop", "ListenStream=@shop"),
    ],
)
def test_an_address_is_written_as_systemd_writes_it(address: str, line: str) -> None:
    assert line in written(f'http = "{address}"')["shop-http.socket"].splitlines()


def test_all_of_ipv6_is_ipv4_too_as_without_systemd() -> None:
    assert values(written('http = "tcp://[::]:80"')["shop-http.socket"], "BindIPv6Only") == ["both"]


def test_a_unix_path_has_the_mode_and_owner_of_the_config() -> None:
    address = '{ address = "unix:///run/a.sock", mode = "0666", user = "shop", group = "www" }'
    text = written(f"http = {address}")["shop-http.socket"]
    assert values(text, "SocketMode") == ["0666"]
    assert values(text, "SocketUser") == ["shop"]
    assert values(text, "SocketGroup") == ["www"]


def test_a_unix_path_belongs_to_the_manager_if_the_config_does_not_say() -> None:
    text = written('http = "unix:///run/a.sock"')["shop-http.socket"]
    assert values(text, "SocketMode") == ["0660"]
    assert values(text, "SocketUser") == ["sockmgr"]


def test_the_backlog_is_that_of_the_config() -> None:
    address = '{ address = "tcp://127.0.0.1:80", backlog = 77 }'
    assert values(written(f"http = {address}")["shop-http.socket"], "Backlog") == ["77"]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tcp://127.0.0.1:0", "a unit needs a port"),
        ("tcp://shop.example:80", "systemd takes addresses"),
        ("fd://3", "cannot name a descriptor"),
    ],
)
def test_an_address_that_systemd_cannot_have_is_refused_by_name(address: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"listen\.http = .*{why}"):
        written(f'http = "{address}"')


# --- The service ---------------------------------------------------------------------------------


def test_the_program_and_the_config_are_filled_in_and_quoted() -> None:
    place = having(program=("/opt/a b/python", "-m", "sockmgr"), config="/etc/100%$.toml")
    text = written(place=place)["shop.service"]
    assert values(text, "ExecStart") == [
        '"/opt/a b/python" -m sockmgr run -c /etc/100%%$$.toml',
    ]
    assert values(text, "ExecReload")[0].endswith(" reload -c /etc/100%%$$.toml")


def test_systemd_kills_only_after_the_longest_drain() -> None:
    text = written(service='drain_timeout = "5m"')["shop.service"]
    assert values(text, "TimeoutStopSec") == ["330"]


def test_systemd_kills_only_after_the_delay_of_a_stop_as_well() -> None:
    config = parse(b'stop_delay = "1m"\n[service.web]\ncommand = ["server"]\n', file="a.toml")
    (service,) = units(config, PLACE).values()
    assert values(service, "TimeoutStopSec") == ["120"]


@pytest.mark.parametrize(
    ("user", "keys"),
    [
        ("", {"SupplementaryGroups": ["ops eyes"], "RuntimeDirectoryMode": ["0711"]}),
        ('user = "a"\n[service.b]\ncommand = ["b"]\nuser = "b"\n', {"SupplementaryGroups": []}),
    ],
)
def test_a_manager_may_give_its_socket_to_the_groups_of_its_clients(
    user: str, keys: dict[str, list[str]]
) -> None:
    text = f'[service.web]\ncommand = ["s"]\n{user}[control]\ngroup = "ops"\nreaders = "eyes"\n'
    (service,) = units(parse(text.encode(), file="a.toml"), PLACE).values()
    assert {key: values(service, key) for key in keys} == keys
    # chown(2) needs a capability, or else it needs a system call that is among @privileged.
    assert ("CAP_CHOWN" in service) == bool(user)
    assert ("SystemCallFilter=@chown" in service) != bool(user)


def test_the_manager_is_the_user_of_its_services() -> None:
    text = written(service='user = "shop"\ngroup = "www"')["shop.service"]
    assert values(text, "User") == ["shop"]
    assert values(text, "Group") == ["www"]


def test_a_given_user_is_taken() -> None:
    text = written(place=having(user="me", group="us"))["shop.service"]
    assert values(text, "User") == ["me"]
    assert values(text, "Group") == ["us"]


def test_a_manager_of_services_of_several_users_is_root_and_may_change_users() -> None:
    other = 'user = "shop"\n[service.job]\ncommand = ["job"]\nlisten = []\nuser = "job"'
    text = written(service=other)["shop.service"]
    assert not values(text, "User")
    assert "CAP_SETUID" in values(text, "CapabilityBoundingSet")[0]
    assert values(text, "SystemCallFilter") == ["@system-service"]


def test_all_hardening_is_in_a_unit_with_a_user() -> None:
    lines = written()["shop.service"].splitlines()
    assert [line for line in HARDENING if line not in lines] == []


def test_what_is_under_somebodys_home_can_be_read() -> None:
    text = written(service='cwd = "/home/shop/app"')["shop.service"]
    assert values(text, "ProtectHome") == ["read-only"]


def test_a_server_that_compiles_at_run_time_may_do_so() -> None:
    text = 'name = "shop"\n[service.web]\ncommand = ["/usr/bin/node", "server.js"]\n'
    (unit,) = units(parse(text.encode(), file="x"), PLACE).values()
    assert values(unit, "MemoryDenyWriteExecute") == ["no"]


def test_managers_do_not_share_a_runtime_directory_because_each_removes_its_own() -> None:
    assert values(written()["shop.service"], "RuntimeDirectory") == ["sockmgr-shop"]


# --- Workers that outlive their manager ----------------------------------------------------------


def test_only_the_manager_is_killed_and_nothing_is_taken_from_those_who_live_on() -> None:
    text = written()["shop.service"]
    assert values(text, "KillMode") == ["process"]
    assert values(text, "RuntimeDirectoryPreserve") == ["restart"]
    for key in ("PrivateTmp", "RemoveIPC", "DynamicUser", "FileDescriptorStorePreserve"):
        assert not values(text, key)


def test_a_worker_that_runs_out_of_memory_is_no_reason_to_stop_the_service() -> None:
    assert values(written()["shop.service"], "OOMPolicy") == ["continue"]


def test_the_fd_store_has_room_for_all_generations_that_may_live() -> None:
    assert values(written()["shop.service"], "FileDescriptorStoreMax") == ["512"]
    many = "workers = 100\n[service.web.rollout]\nmax_draining = 1"
    (size,) = values(written(service=many)["shop.service"], "FileDescriptorStoreMax")
    # 4 generations of 100 workers with 2 each, 4 queues, 2 move queues of 2 ends, 2 states, the
    # notify socket, the guard's and 2 of the dispatcher: twice.
    assert int(size) == 2 * (4 * 100 * 2 + 4 + 4 + 2 + 1 + 1 + 2)


# --- Versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "limits"), [(252, []), (254, []), (255, ["5"]), (262, ["5"])])
def test_the_poll_limit_is_written_only_for_a_systemd_that_knows_it(
    version: int, limits: list[str]
) -> None:
    text = written(place=having(version=version))["shop-http.socket"]
    assert values(text, "PollLimitBurst") == limits
    assert values(text, "TriggerLimitIntervalSec") == ["0"]


def test_notify_reload_is_a_drop_in_beside_a_unit_that_works_without_it() -> None:
    files = written(place=having(version=253, notify_reload=True))
    drop_in = files["shop.service.d/notify-reload.conf"]
    assert values(drop_in, "Type") == ["notify-reload"]
    assert values(drop_in, "ExecReload") == [""]
    assert values(files["shop.service"], "Type") == ["notify"]


def test_notify_reload_is_refused_for_a_systemd_that_would_ignore_it() -> None:
    with pytest.raises(ConfigError, match="systemd 252 does not know Type=notify-reload"):
        written(place=having(version=252, notify_reload=True))


# --- Whose files ---------------------------------------------------------------------------------


def test_a_file_is_ours_until_somebody_changes_it() -> None:
    for text in written().values():
        assert is_ours(text)
        assert not is_ours(text.replace("Description=", "Description=my "))
        assert not is_ours(text.partition("\n")[2])

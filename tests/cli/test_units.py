"""`sockmgr units`: prints or installs, and never overwrites what somebody changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.command_line import sockmgr

CONFIG = """
name = "shop"
[listen]
http = "tcp://127.0.0.1:8000"
admin = "unix:///run/shop-admin.sock"
[service.web]
command = ["true"]
listen = ["http", "admin"]
"""
FILES = ["shop-http.socket", "shop-admin.socket", "shop.service"]


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of units, beside a config that is found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sockmgr.toml").write_text(CONFIG)
    return tmp_path / "units"


def install(units: Path, *options: str) -> int:
    return sockmgr("units", "--systemd=252", "--install", f"--dir={units}", *options).exit_code


def test_units_are_printed_and_nothing_is_written(units: Path) -> None:
    result = sockmgr("units", "--systemd=252", f"--dir={units}")
    assert result.exit_code == 0
    assert f"# {units}/shop.service\n" in result.stdout
    assert f"-c {units.parent}/sockmgr.toml\n" in result.stdout
    assert not units.exists()


def test_units_for_a_config_that_cannot_be_used_are_a_usage_error(units: Path) -> None:
    (units.parent / "sockmgr.toml").write_text(CONFIG.replace(":8000", ":0"))
    result = sockmgr("units", "--systemd=252", f"--dir={units}")
    assert result.exit_code == 2
    assert "listen.http" in result.stderr


def test_installed_units_are_files_for_all_to_read(units: Path) -> None:
    assert install(units) == 0
    assert sorted(path.name for path in units.iterdir()) == sorted(FILES)
    assert {path.stat().st_mode & 0o777 for path in units.iterdir()} == {0o644}


def test_units_are_installed_twice_without_a_change(units: Path) -> None:
    install(units)
    before = {path: path.stat().st_ino for path in units.iterdir()}
    assert install(units) == 0
    assert {path: path.stat().st_ino for path in units.iterdir()} == before


def test_a_unit_of_an_older_config_is_replaced(units: Path) -> None:
    install(units)
    (units.parent / "sockmgr.toml").write_text(CONFIG.replace(":8000", ":8001"))
    assert install(units) == 0
    assert "ListenStream=127.0.0.1:8001" in (units / "shop-http.socket").read_text()


def test_a_unit_that_somebody_changed_is_not_overwritten_and_none_else_is(units: Path) -> None:
    install(units)
    changed = units / "shop.service"
    changed.write_text(changed.read_text() + "# mine\n")
    before = {path: path.read_text() for path in units.iterdir()}
    (units.parent / "sockmgr.toml").write_text(CONFIG.replace(":8000", ":8001"))
    result = sockmgr("units", "--systemd=252", "--install", f"--dir={units}")
    assert result.exit_code == 1
    assert str(changed) in result.stderr
    assert {path: path.read_text() for path in units.iterdir()} == before


def test_force_overwrites_a_unit_that_somebody_changed(units: Path) -> None:
    install(units)
    (units / "shop.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert install(units, "--force") == 0
    assert "ExecReload=" in (units / "shop.service").read_text()


def test_a_socket_unit_that_the_config_no_longer_has_is_named(units: Path) -> None:
    install(units)
    text = CONFIG.replace('admin = "unix:///run/shop-admin.sock"\n', "").replace(', "admin"', "")
    (units.parent / "sockmgr.toml").write_text(text)
    result = sockmgr("units", "--systemd=252", "--install", f"--dir={units}")
    assert f"{units}/shop-admin.socket is of an older config" in result.stderr
    assert f"{units}/shop-http.socket is of an older config" not in result.stderr


def test_who_installs_a_socket_later_is_told_that_a_running_manager_may_hold_its_address(
    units: Path,
) -> None:
    fewer = CONFIG.replace('admin = "unix:///run/shop-admin.sock"\n', "").replace(', "admin"', "")
    (units.parent / "sockmgr.toml").write_text(fewer)
    assert "holds it" not in sockmgr("units", "--install", f"--dir={units}").stderr
    (units.parent / "sockmgr.toml").write_text(CONFIG)
    told = sockmgr("units", "--install", f"--dir={units}").stderr
    assert "shop-admin.socket: if a reload has opened that address already" in told
    assert "when shop.service is stopped and started" in told


def test_what_is_to_be_done_next_depends_on_what_is_there(units: Path) -> None:
    def after(config: str) -> str:
        (units.parent / "sockmgr.toml").write_text(config)
        told = sockmgr("units", "--systemd=252", "--install", f"--dir={units}").stderr
        return told.partition("next: ")[2].partition("\n")[0]

    fewer = CONFIG.replace('admin = "unix:///run/shop-admin.sock"\n', "").replace(', "admin"', "")
    reread = "systemctl daemon-reload && "
    assert after(fewer) == f"{reread}systemctl enable --now shop-http.socket shop.service"
    assert after(fewer) == ""
    assert after(CONFIG) == (
        f"{reread}systemctl enable shop-admin.socket && systemctl restart shop.service"
    )
    moved = CONFIG.replace(":8000", ":8001")
    assert after(moved) == f"{reread}systemctl restart shop-http.socket shop.service"


def test_units_in_json_say_what_is_there(units: Path) -> None:
    install(units)
    (units / "shop.service").unlink()
    answer = json.loads(sockmgr("units", "--systemd=255", f"--dir={units}", "--json").stdout)
    assert answer["systemd"] == 255
    assert answer["installed"] is False
    states = {Path(unit["path"]).name: unit["state"] for unit in answer["units"]}
    assert states == {
        "shop-http.socket": "outdated",  # the poll limit is not in it
        "shop-admin.socket": "outdated",
        "shop.service": "new",
    }


def test_a_directory_that_cannot_be_written_is_an_error(units: Path) -> None:
    units.write_text("a file")
    result = sockmgr("units", "--systemd=252", "--install", f"--dir={units}")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_a_server_that_the_unit_would_not_find_is_named(units: Path) -> None:
    (units.parent / "sockmgr.toml").write_text(CONFIG.replace('"true"', '"no-such-server"'))
    result = sockmgr("units", "--systemd=252", f"--dir={units}")
    assert "service.web: no-such-server is not in /" in result.stderr


def test_a_user_that_is_missing_is_named_with_the_command_that_adds_it(units: Path) -> None:
    result = sockmgr("units", "--systemd=252", f"--dir={units}", "--user=shop-web")
    assert "there is no user shop-web yet" in result.stderr
    assert "useradd --system shop-web" in result.stderr


def test_a_group_without_a_user_is_a_usage_error(units: Path) -> None:
    assert install(units, "--group=www") == 2

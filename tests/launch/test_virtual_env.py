"""The virtual environment of a release: which is taken, and what workers have of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sockmgr.config import config
from sockmgr.config.spec import Spec
from sockmgr.errors import ConfigError, SpawnError
from sockmgr.launch.executable import find
from sockmgr.launch.resolve import Prepared, prepare
from sockmgr.launch.virtual_env import astray, borrowed, searched


def environment(path: Path, *programs: str, packages: tuple[str, ...] = ()) -> Path:
    """Make what is a virtual environment to everybody who looks at its files."""
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to(sys.executable)
    for program in programs:
        (path / "bin" / program).write_text("#!/bin/sh\n")
        (path / "bin" / program).chmod(0o755)
    (path / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    for package in packages:
        (path / "lib" / "python3.11" / "site-packages" / package).mkdir(parents=True)
        (path / "lib/python3.11/site-packages" / package / "__init__.py").touch()
    return path


def prepared(cwd: Path, environ: dict[str, str], **keys: object) -> Prepared:
    command = () if "app" in keys else ("serve",)
    parsed = config.from_arguments(
        ["http=tcp://127.0.0.1:80"], command, keys={"cwd": str(cwd), **keys}
    )
    return prepare(parsed.services[0], parsed.listens(), environ)


def strays(*given: Any) -> list[str]:
    found = prepared(*given)
    return list(astray(found.service, found.env, found.cwd))


def spec(cwd: Path, environ: dict[str, str], **keys: object) -> Spec:
    return prepared(cwd, environ, **keys).spec()


def test_the_environment_beside_the_code_comes_first_and_that_of_the_manager_is_left_out(
    tmp_path: Path,
) -> None:
    old = environment(tmp_path / "releases" / "1" / ".venv", "serve", "only-old")
    new = environment(tmp_path / "releases" / "2" / ".venv", "serve")
    (tmp_path / "current").symlink_to(new.parent)
    environ = {
        "PATH": f"{old}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(old), "PYTHONHOME": "/nowhere",
    }  # fmt: skip
    found = spec(tmp_path / "current", environ)
    env = dict(found.env)
    assert (env["VIRTUAL_ENV"], env["PATH"]) == (str(new), f"{new}/bin:/usr/bin:/bin")
    assert "PYTHONHOME" not in env
    assert found.executable == str(new / "bin" / "serve")
    with pytest.raises(SpawnError, match="only-old is not in the PATH of the workers"):
        spec(tmp_path / "current", environ, hooks={"before": ["only-old"]})
    assert strays(tmp_path / "current", environ) == []


def test_a_release_with_an_environment_of_its_own_has_no_program_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")  # in which the manager was started
    ours = str(Path(sys.executable).with_name("pytest"))
    for active, found in (("/elsewhere", ours), (f"{tmp_path}/.venv", None)):
        env = {"PATH": "/nowhere", "VIRTUAL_ENV": active}
        assert find("pytest", env, str(tmp_path)) == found


@pytest.mark.parametrize("keys", [{}, {"venv": "../other"}])
def test_the_environment_of_sockmgr_is_left_out_of_that_of_a_release(
    keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever VIRTUAL_ENV says: a manager is started by its path, or by PATH, as in a unit."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    release = tmp_path / "release"
    here = environment(release / keys.get("venv", ".venv"), "serve").resolve()
    (tmp_path / "link").symlink_to(sys.prefix)
    environ = {"PATH": f"{tmp_path}/link/bin:{sys.prefix}/bin:/bin"}
    assert dict(spec(release, environ, **keys).env)["PATH"] == f"{here}/bin:/bin"
    with pytest.raises(SpawnError, match="pytest is not in the PATH of the workers"):
        spec(release, environ, hooks={"before": ["pytest"]}, **keys)


def test_the_config_names_another_environment_or_none(tmp_path: Path) -> None:
    environment(tmp_path / ".venv", "serve")
    other = environment(tmp_path / "other", "serve")
    (tmp_path / "link").symlink_to(other)
    environ = {"PATH": f"{other}/bin:/bin"}
    env = dict(spec(tmp_path, environ, venv="link").env)
    assert (env["VIRTUAL_ENV"], env["PATH"]) == (str(other), f"{other}/bin:/bin")
    for keys in ({"venv": ""}, {"env": {"PATH": f"{other}/bin"}}):
        found = spec(tmp_path, environ, **keys)
        assert found.executable == str(other / "bin" / "serve")
        assert "VIRTUAL_ENV" not in dict(found.env)
    both = spec(tmp_path, environ, venv=".venv", env={"PATH": f"{other}/bin"})
    assert both.executable == str(tmp_path / ".venv" / "bin" / "serve")
    bare = spec(tmp_path, environ, inherit_env=False)
    assert dict(bare.env)["PATH"] == f"{tmp_path}/.venv/bin:{os.defpath}"


def test_what_units_search_is_what_workers_search(tmp_path: Path) -> None:
    there = environment(tmp_path / ".venv", "serve")
    for keys in ({}, {"venv": ""}, {"env": {"PATH": "/opt/bin"}}, {"venv": ".venv"}):
        found = prepared(tmp_path, {"PATH": f"/usr/bin:{there}/bin"}, **keys)
        assert searched(found.service, f"/usr/bin:{there}/bin") == found.env["PATH"]
    (there / "bin" / "python").unlink()  # which is for who resolves the service to tell
    assert searched(found.service, "/bin") == f"{there}/bin:/bin"


@pytest.mark.parametrize("named", ["gone", "file", "empty"])
def test_an_environment_that_is_none_is_refused(named: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=rf"service\.web\.venv = {named}: .*python is not there"):
        spec(tmp_path, {}, venv=named)


def test_a_directory_that_was_never_an_environment_is_none_and_a_broken_one_is_told(
    tmp_path: Path,
) -> None:
    (tmp_path / ".venv").mkdir()
    environment(tmp_path / "other", "serve")
    environ = {"PATH": f"{tmp_path}/other/bin"}
    assert "VIRTUAL_ENV" not in dict(spec(tmp_path, environ).env)
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    with pytest.raises(ConfigError, match=r"service\.web\.venv = \.venv: .*python is not there"):
        spec(tmp_path, environ)


# --- app -----------------------------------------------------------------------------------------


def test_an_app_runs_in_the_environment_that_has_the_runtime(tmp_path: Path) -> None:
    there = environment(tmp_path / ".venv", packages=("sockmgr", "uvicorn"))
    found = spec(tmp_path, {"PATH": "/bin"}, app="a:b")
    assert found.executable == str(there / "bin" / "python")
    given = spec(tmp_path, {"PATH": "/bin"}, app="a:b", python=sys.executable)
    assert given.executable == sys.executable
    assert dict(given.env)["VIRTUAL_ENV"] == str(there)
    assert spec(tmp_path, {"PATH": "/bin"}, app="a:b", venv="").executable == sys.executable


def test_an_app_is_refused_where_the_environment_has_no_runtime(tmp_path: Path) -> None:
    there = environment(tmp_path / ".venv")
    with pytest.raises(ConfigError) as caught:
        spec(tmp_path, {"PATH": "/bin"}, app="a:b")
    assert caught.value.what == (
        f"service.web.venv = {there}: sockmgr, which runs it, is not installed for "
        f"{there}/bin/python"
    )
    assert "pip install" in caught.value.do
    assert 'venv = ""' in caught.value.do


def test_an_app_in_an_environment_of_its_own_is_probed_on_a_unix_socket_if_it_is_dispatched(
    tmp_path: Path,
) -> None:
    environment(tmp_path / ".venv", packages=("sockmgr", "uvicorn"))
    keys = {"app": "a:b", "cwd": str(tmp_path), "ready": {"http": "/up"}}
    for accept in ("shared", "dispatch"):
        parsed = config.from_arguments(
            ["http=unix:///run/x/y"], (), keys={**keys, "accept": accept}
        )
        found = prepare(parsed.services[0], parsed.listens(), {"PATH": "/bin"})
        if accept == "shared":
            with pytest.raises(ConfigError) as caught:
                found.spec()
            assert caught.value.do.startswith('add accept = "dispatch", or use { exec = ')
        else:
            assert found.spec().accept == "dispatch"


def test_the_managers_own_environment_is_none_of_another(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    found = prepared(tmp_path, {"PATH": "/bin"}, app="a:b")
    assert found.service.python == ""
    assert found.spec().executable == sys.executable


# --- Astray --------------------------------------------------------------------------------------


def test_what_leads_to_another_release_or_has_gone_is_told(tmp_path: Path) -> None:
    old = environment(tmp_path / "releases" / "1" / "env", "serve")
    (tmp_path / "releases" / "2" / "src").mkdir(parents=True)
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "2")
    tools = environment(tmp_path / "tools", "serve")
    release = tmp_path / "releases" / "2"
    environ = {"PATH": f"{old}/bin:{tools}/bin:/nowhere/bin:/bin", "VIRTUAL_ENV": str(old)}
    found = strays(tmp_path / "current" / "src", environ)
    assert found == [
        f"VIRTUAL_ENV leads to {old}, which is not of the release {release}",
        f"PATH leads to {old}/bin, which is not of the release {release}",
    ]
    gone = {"PATH": f"{tools}/bin:/bin", "VIRTUAL_ENV": str(tmp_path / "gone")}
    assert strays(tmp_path / "current", gone) == [
        f"VIRTUAL_ENV leads to {tmp_path / 'gone'}, which has gone"
    ]
    shared = {"PATH": f"{tools}/bin:/bin", "VIRTUAL_ENV": str(tools)}
    assert strays(tmp_path / "current", shared) == []
    # Without a link nothing shows what another release would be.
    assert strays(release, environ) == []


def test_a_release_that_runs_in_what_its_link_leads_to_has_an_environment(tmp_path: Path) -> None:
    shared = environment(tmp_path / "shared", "serve")
    release = tmp_path / "releases" / "2"
    release.mkdir(parents=True)
    (tmp_path / "current").symlink_to(release)
    service = prepared(tmp_path / "current", {"PATH": f"{shared}/bin:/bin"}).service
    program = str(shared / "bin" / "serve")
    told = f"the release {release} has no .venv, so it runs with what is installed in {shared}"
    assert borrowed(service, program, str(release)).startswith(told)
    (release / ".venv").symlink_to(shared)
    assert borrowed(service, program, str(release)) == ""

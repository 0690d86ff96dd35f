"""The virtual environment of a release: found beside its code, and put first for its workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sockmgr.config.config import ServiceConfig
from sockmgr.errors import ConfigError


def beside(cwd: str) -> str:
    """Return the environment beside the code in `cwd`, "" if there is none."""
    found = Path(cwd, ".venv")
    return str(found) if (found / "pyvenv.cfg").exists() else ""


def searched(service: ServiceConfig, path: str) -> str:
    """Return the PATH of the workers of a service whose manager has the PATH `path`."""
    env = {"PATH": dict(service.env).get("PATH", path)}
    if found := _chosen(service, service.cwd or "/"):
        env = activated(env, os.path.realpath(Path(service.cwd or "/", found)))
    return env["PATH"]


def home(service: ServiceConfig, cwd: str) -> str:
    """Return the real path of the environment of a service, "" for none; raise ConfigError."""
    if not (found := _chosen(service, cwd)):
        return ""
    # The real path: a link on the way may move while this generation runs.
    path = os.path.realpath(Path(cwd, found))
    if not os.access(f"{path}/bin/python", os.X_OK, effective_ids=True):
        shown = f"service.{service.name}.venv = {service.venv or '.venv'}"
        raise ConfigError(
            f"{shown}: {path}/bin/python is not there, or not for us to run",
            do=f'make the environment (python -m venv {path}), correct venv, or set venv = ""',
        )
    return path


def _chosen(service: ServiceConfig, cwd: str) -> str:
    """Return the environment that the config names, or that beside the code."""
    if service.venv is None and not {"PATH", "VIRTUAL_ENV"} & dict(service.env).keys():
        return beside(cwd)
    return service.venv or ""


def activated(env: Mapping[str, str], home: str) -> dict[str, str]:
    """Return `env` with the programs of the environment `home` first, as its `activate` does.

    Those of the environment that was active before are left out, and those of our own: they would
    run without the packages of `home`.
    """
    ours = sys.prefix if sys.prefix != sys.base_prefix else home  # which is not that of the system
    before = [os.path.realpath(f"{each}/bin") for each in (env.get("VIRTUAL_ENV", home), ours)]
    every = env.get("PATH", os.defpath).split(os.pathsep)
    path = (each for each in every if os.path.realpath(each) not in before)
    kept = {name: text for name, text in env.items() if name != "PYTHONHOME"}
    return kept | {"VIRTUAL_ENV": home, "PATH": os.pathsep.join([f"{home}/bin", *path])}


def astray(service: ServiceConfig, env: Mapping[str, str], cwd: str) -> Iterator[str]:
    """Yield which variables of `env` lead to an environment that is not the release's, and why.

    What is another release shows by the link in the config that leads to `cwd`.
    """
    link = _link(service)
    release = link.resolve() if link else Path(cwd)
    for name in ("VIRTUAL_ENV", "PATH"):
        for path in filter(None, env.get(name, "").split(os.pathsep)):
            real = Path(cwd, path).resolve()
            is_near = link and real.is_relative_to(release.parent)
            if is_near and not real.is_relative_to(release):
                yield f"{name} leads to {path}, which is not of the release {release}"
            elif name == "VIRTUAL_ENV" and not real.exists():
                yield f"{name} leads to {path}, which has gone"


def borrowed(service: ServiceConfig, program: str, cwd: str) -> str:
    """Return of a release without an environment whose it runs in unasked, as a sentence, or "".

    `program` is the file that its workers run. What is a release shows by the link to `cwd`.
    """
    named = service.python or (service.command and "/" in service.command[0])
    own = service.venv is not None or {"PATH", "VIRTUAL_ENV"} & dict(service.env).keys()
    home, link = Path(program).parent.parent, _link(service)
    if named or own or not link or not (home / "pyvenv.cfg").exists():
        return ""
    if home.is_relative_to(link.resolve()) or home.resolve() == Path(cwd, ".venv").resolve():
        return ""
    return (
        f"the release {cwd} has no .venv, so it runs with what is installed in {home}: make one, "
        'or say by venv = "" that this is meant'
    )


def _link(service: ServiceConfig) -> Path | None:
    """Return the link on the way to the directory of a service, None if there is none."""
    given = Path(service.cwd or ".").absolute()
    return next((each for each in (given, *given.parents) if each.is_symlink()), None)

"""`sockmgr units`: prints or installs the systemd units for a config."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sockmgr.cli import target
from sockmgr.config.config import Config
from sockmgr.errors import SockmgrError
from sockmgr.systemd.unit import running_version
from sockmgr.systemd.units import OLDEST, SEARCHED, Place, is_ours, units

DIRECTORY = "/etc/systemd/system"


@click.command("units")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="The config file.")
@click.option("--install", is_flag=True, help="Write the files instead of printing them.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="Where the files belong.",
)
@click.option("--force", is_flag=True, help="Overwrite even files that somebody has changed.")
@click.option("--user", default="", metavar="NAME", help="The user that the manager runs as.")
@click.option("--group", default="", metavar="NAME", help="The group that the manager runs as.")
@click.option(
    "--notify-reload",
    is_flag=True,
    help="Add a drop-in for Type=notify-reload, with which systemd does not see that a reload "
    "failed.",
)
@click.option(
    "--systemd", "version", type=int, help="The version of systemd, instead of the one that runs."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(
    config: Path | None, install: bool, directory: Path, force: bool, as_json: bool, **about: Any
) -> None:
    """Write the .socket and .service units for a config."""
    if about["group"] and not about["user"]:
        raise click.UsageError("--group needs --user")
    path = (config or Path(target.DEFAULT_CONFIG)).absolute()
    found = target.read_config(path)
    about["version"] = about["version"] or running_version()
    if about["version"] is None:
        target.narrate(f"systemctl is not here: written for systemd {OLDEST} and later")
        about["version"] = OLDEST
    # A PATH with the programs of our virtual environment, if we are in one.
    search = f"{sys.prefix}/bin:{SEARCHED}" if sys.prefix != sys.base_prefix else ""
    place = Place(program=_program(), config=str(path), path=search, **about)
    files = units(found, place)
    states = {name: _state(directory / name, text) for name, text in files.items()}
    if install:
        _install(directory, files, states, force=force)
    _answer(directory, files, states, place, install=install, as_json=as_json)
    for remark in _remarks(found, place, "".join(files.values())):
        target.narrate(remark)
    for name in _left_over(directory, found.name, states):
        target.narrate(f"{directory / name} is of an older config: disable and remove it")
    service = f"{found.name}.service"
    if install and (steps := _next(service, states)):
        target.narrate(f"next: {' && '.join(steps)}")
        if states[service] != "new" and (late := _new(states)):
            target.narrate(
                f"{', '.join(late)}: if a reload has opened that address already, the manager "
                "holds it, and keeps it over restarts and crashes; systemd can take it over, and "
                f"shows the socket as failed until then, when {service} is stopped and started"
            )


# --- Where the manager is to run -----------------------------------------------------------------


def _program() -> tuple[str, ...]:
    called = Path(sys.argv[0])
    if called.name == "sockmgr":
        return (str(called.absolute()),)
    return (sys.executable, "-m", "sockmgr")


def _remarks(config: Config, place: Place, texts: str) -> Iterator[str]:
    from sockmgr.kernel.accounts import user_number
    from sockmgr.launch.executable import find
    from sockmgr.launch.virtual_env import searched

    for user in sorted(set(re.findall(r"^(?:Socket)?User=(.+)$", texts, re.MULTILINE))):
        if user_number(user) is None:
            yield (
                f"there is no user {user} yet, without whom no unit of theirs starts: "
                f"useradd --system {user}, or another user by --user"
            )
    for service in config.services:
        path = searched(service, place.path or SEARCHED)
        if service.app:
            continue  # our own Python runs an application
        if find(service.command[0], {"PATH": path}, service.cwd or "/") is None:
            yield (
                f"service.{service.name}: {service.command[0]} is not in {path}: "
                "write its whole path in `command`"
            )


# --- Files ---------------------------------------------------------------------------------------


def _state(path: Path, wanted: str) -> str:
    """Return what writing a text would do to `path`: new, unchanged, outdated or changed.

    An "outdated" file is as an earlier run wrote it; a "changed" one was edited by somebody.
    """
    try:
        text = path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return "new"
    except OSError as error:
        raise SockmgrError(f"cannot read {path}: {error.strerror}") from error
    if text == wanted:
        return "unchanged"
    return "outdated" if is_ours(text) else "changed"


def _install(
    directory: Path, files: dict[str, str], states: dict[str, str], *, force: bool
) -> None:
    changed = [str(directory / name) for name, state in states.items() if state == "changed"]
    if changed and not force:
        raise SockmgrError(
            "somebody changed, or wrote, " + ", ".join(changed),
            means="no file was written",
            do="move the changes to a drop-in (systemctl edit), then overwrite with --force",
        )
    for name, text in files.items():
        if states[name] != "unchanged":
            _write(directory / name, text)


def _next(service: str, states: dict[str, str]) -> list[str]:
    units = {name: state for name, state in states.items() if "/" not in name}
    if set(states.values()) == {"unchanged"}:
        return []
    if units[service] == "new":
        return ["systemctl daemon-reload", f"systemctl enable --now {' '.join(units)}"]
    new = _new(units)
    # Sockets whose addresses changed; a new socket is started with the service that requires it.
    moved = [name for name, state in units.items() if state in ("outdated", "changed")]
    return [
        "systemctl daemon-reload",
        *([f"systemctl enable {' '.join(new)}"] if new else []),
        f"systemctl restart {' '.join(dict.fromkeys([*moved, service]))}",
    ]


def _new(states: dict[str, str]) -> list[str]:
    return [name for name, state in states.items() if state == "new"]


def _write(path: Path, text: str) -> None:
    """Write the file and rename it into place, because systemd may read it at any time."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text)
        new.chmod(0o644)
        os.replace(new, path)  # noqa: PTH105 - as rename(2)
    except OSError as error:
        raise SockmgrError(
            f"cannot write {path}: {error.strerror}",
            do="become root, or name another directory with --dir",
        ) from error


def _left_over(directory: Path, name: str, states: dict[str, str]) -> Iterator[str]:
    """Yield the files that an older config left in the directory, which systemd still uses."""
    service = f"{name}.service"
    for path in sorted(directory.glob(f"{name}-*.socket")):
        if path.name not in states:
            text = path.read_text(errors="replace")
            if is_ours(text) and f"\nService={service}\n" in text:
                yield path.name
    drop_in = f"{service}.d/notify-reload.conf"
    if drop_in not in states and (directory / drop_in).is_file():
        yield drop_in


def _answer(
    directory: Path,
    files: dict[str, str],
    states: dict[str, str],
    place: Place,
    *,
    install: bool,
    as_json: bool,
) -> None:
    if as_json:
        listed = [
            {"path": str(directory / name), "state": states[name], "text": text}
            for name, text in files.items()
        ]
        answer = {"systemd": place.version, "installed": install, "units": listed}
        click.echo(json.dumps(answer, indent=2))
        return
    for name, text in files.items():
        if install:
            did = "unchanged" if states[name] == "unchanged" else "written"
            click.echo(f"{directory / name}: {did}")
        else:
            click.echo(f"# {directory / name}\n{text}")

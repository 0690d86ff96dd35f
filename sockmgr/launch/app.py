"""The command of a service with `app`: our runtime in a Python. Runs and imports nothing."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sockmgr.config import placeholder
from sockmgr.config.config import ServiceConfig
from sockmgr.config.servers import Server
from sockmgr.config.spec import Accept
from sockmgr.errors import ConfigError
from sockmgr.launch.presets import Fit
from sockmgr.worker.http_options import HttpOptions

# -P, so that no module in the working directory hides one of ours; the runtime adds the directory
# later, for the modules of the application.
ARGUMENTS = ("-P", "-m", "sockmgr.worker")
HANG_TIMEOUT = 60.0
_RUNTIME = Server(name="app", broken_exits=frozenset({2, 3}))


def fit(service: ServiceConfig, env: Mapping[str, str], find: Callable[[str], str | None]) -> Fit:
    """Return the command of a service that has `app`; raise ConfigError if a package is missing.

    `env` is the environment of the workers; `find` returns the file of a program's name.
    """
    python = find(service.python) if service.python else None
    if not service.python:
        _check_ours(service)
    elif python:
        _check_theirs(service, Path(python), env)
    return Fit(
        server=_RUNTIME,
        argv=(service.python or sys.executable, *ARGUMENTS, *_options(service), service.app),
        moves=_moves(service, env, python),
    )


def _moves(service: ServiceConfig, env: Mapping[str, str], python: str | None) -> str:
    """Return a text; workers with the same one may give each other their connections ("": none).

    It has all that decides which connections a worker lets in, so that none gets to a worker that
    would have refused it.
    """
    http = service.http
    if not (service.listen and http.migrate) or http.certfile:
        return ""
    if service.python and not (python and _takes_moves(Path(python))):
        return ""
    if not http.proxy_protocol:
        return "http"
    trusted = http.trusted_proxies or env.get("FORWARDED_ALLOW_IPS", "").split(",")
    return " ".join(["proxy", *sorted(trusted)])


def _takes_moves(python: Path) -> bool:
    """Return whether the runtime of an environment can take over connections of other workers."""
    site = "lib/python3*/site-packages"
    return any(python.parent.parent.glob(f"{site}/sockmgr/worker/moves.py"))


def _options(service: ServiceConfig) -> Iterator[str]:
    http = service.http
    # With "dispatch" connections come by a channel instead: SOCKMGR_DISPATCH_FD.
    for name in service.listen if service.accept is not Accept.DISPATCH else ():
        yield from ("--fd", f"{{{name}}}")
    yield f"--drain-timeout={service.drain_timeout:g}"
    if service.interface:
        yield f"--interface={service.interface}"
    yield f"--http={http.protocol}"
    yield f"--ws={'websockets-sansio' if http.websockets == 'websockets' else http.websockets}"
    for field in dataclasses.fields(HttpOptions):
        option, value = field.name.replace("_", "-"), getattr(http, field.name)
        if isinstance(value, bool) and value is not field.default:
            yield f"--{option}" if value else f"--no-{option}"
        elif value != field.default:
            yield f"--{option}={placeholder.literal(str(value))}"
    # For an empty array one empty word: without the option FORWARDED_ALLOW_IPS would count.
    for proxy in () if http.trusted_proxies is None else http.trusted_proxies or ("",):
        yield f"--trusted-proxy={placeholder.literal(proxy)}"


def _needed(service: ServiceConfig) -> Iterator[tuple[str, str, str]]:
    yield "uvicorn", "asgi", "serves it"
    if service.http.http2 or service.http.protocol == "zttp":
        yield "zttp", "http2", "parses HTTP for it"


def _check_theirs(service: ServiceConfig, python: Path, env: Mapping[str, str]) -> None:
    """Raise ConfigError if a virtual environment lacks a package; no other Python is looked at."""
    home = python.parent.parent
    is_venv = service.venv == str(home)
    key = f"venv = {home}" if is_venv else f"python = {service.python}"
    instead = '; or set venv = "", for the Python of the manager' if is_venv else ""
    try:
        settings = (home / "pyvenv.cfg").read_text()
    except OSError:
        return
    if "include-system-site-packages = true" in settings or "PYTHONPATH" in env:
        return
    for package, extra, purpose in (("sockmgr", "asgi", "runs it"), *_needed(service)):
        # A package that is installed as editable has only its metadata there.
        if not any(home.glob(f"lib/python3*/site-packages/{package}[-.]*")) and not any(
            home.glob(f"lib/python3*/site-packages/{package}/__init__.py")
        ):
            raise ConfigError(
                f"service.{service.name}.{key}: {package}, which {purpose}, is not installed for "
                f"{python}",
                do=f"install it there as well: {python} -m pip install 'sockmgr[{extra}]'{instead}",
            )


def _check_ours(service: ServiceConfig) -> None:
    importlib.invalidate_caches()  # a package may have been installed since the manager started
    for package, extra, purpose in _needed(service):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"service.{service.name}.app = {service.app}: {package}, which {purpose}, is not "
                f"installed for {sys.executable}",
                do=f"pip install 'sockmgr[{extra}]' into that environment, or name another "
                "interpreter by the key python",
            )

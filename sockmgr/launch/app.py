"""The command that `app =` stands for: our runtime in our own Python. Runs and imports nothing."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sockmgr.config import placeholder
from sockmgr.config.config import ServiceConfig
from sockmgr.config.spec import Accept
from sockmgr.errors import ConfigError
from sockmgr.launch.presets import Fit

# -P: the working directory shall not hide our modules; the runtime adds it for the application's.
ARGUMENTS = ("-P", "-m", "sockmgr.worker")
HANG_TIMEOUT = 60.0
BROKEN_EXITS = frozenset({2, 3})


def fit(service: ServiceConfig, env: Mapping[str, str], find: Callable[[str], str | None]) -> Fit:
    """Return the command of a service that has `app`, and what is known of how it ends.

    `env` is that of the workers; `find` returns the file that a program's name stands for.
    """
    if not service.python:
        _check_ours(service)
    elif python := find(service.python):
        _check_theirs(service, Path(python), env)
    return Fit(
        name="app",
        argv=(service.python or sys.executable, *ARGUMENTS, *_options(service), service.app),
        stop_signal=signal.SIGTERM,
        broken_exits=BROKEN_EXITS,
    )


def _options(service: ServiceConfig) -> Iterator[str]:
    http = service.http
    # What the manager accepts comes by its channel: SOCKMGR_DISPATCH_FD.
    for name in service.listen if service.accept is not Accept.DISPATCH else ():
        yield from ("--fd", f"{{{name}}}")
    yield f"--drain-timeout={service.drain_timeout:g}"
    if service.interface:
        yield f"--interface={service.interface}"
    yield f"--keep-alive={http.keep_alive:g}"
    yield f"--http={http.protocol}"
    yield f"--ws={'websockets-sansio' if http.websockets == 'websockets' else http.websockets}"
    yield f"--loop={http.loop}"
    yield f"--threads={http.threads}"
    yield f"--log-level={http.log_level}"
    yield f"--header-timeout={http.header_timeout:g}"
    yield f"--client-certs={http.client_certs}"
    for option in ("certfile", "keyfile", "keyfile_password_file", "ca_certs", "root_path"):
        if value := getattr(http, option):
            yield f"--{option.replace('_', '-')}={placeholder.literal(value)}"
    # If none is named, an empty one says so; without the key, FORWARDED_ALLOW_IPS holds.
    for proxy in () if http.trusted_proxies is None else http.trusted_proxies or ("",):
        yield f"--trusted-proxy={placeholder.literal(proxy)}"
    if http.proxy_protocol:
        yield "--proxy-protocol"
    if http.http2:
        yield "--http2"
    if not http.access_log:
        yield "--no-access-log"


def _needed(service: ServiceConfig) -> Iterator[tuple[str, str, str]]:
    yield "uvicorn", "asgi", "serves it"
    if service.http.http2 or service.http.protocol == "zttp":
        yield "zttp", "http2", "parses HTTP for it"


def _check_theirs(service: ServiceConfig, python: Path, env: Mapping[str, str]) -> None:
    """Look for packages where a virtual environment has them; elsewhere its start will tell."""
    home = python.parent.parent
    try:
        settings = (home / "pyvenv.cfg").read_text()
    except OSError:
        return
    if "include-system-site-packages = true" in settings or "PYTHONPATH" in env:
        return
    for package, extra, purpose in (("sockmgr", "asgi", "runs it"), *_needed(service)):
        # One that is installed to be edited has its metadata there only.
        if not any(home.glob(f"lib/python3*/site-packages/{package}[-.]*")) and not any(
            home.glob(f"lib/python3*/site-packages/{package}/__init__.py")
        ):
            raise ConfigError(
                f"service.{service.name}.python = {service.python}: {package}, which {purpose}, is "
                f"not installed for {python}",
                do=f"install it there as well: {python} -m pip install 'sockmgr[{extra}]'",
            )


def _check_ours(service: ServiceConfig) -> None:
    importlib.invalidate_caches()  # it may have been installed since we started
    for package, extra, purpose in _needed(service):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"service.{service.name}.app = {service.app}: {package}, which {purpose}, is not "
                f"installed for {sys.executable}",
                do=f"pip install 'sockmgr[{extra}]' into that environment, or name another "
                "interpreter by the key python",
            )

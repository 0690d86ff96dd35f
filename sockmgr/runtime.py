"""The command that `app =` stands for: our runtime in our own Python. Runs and imports nothing."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from collections.abc import Iterator

from sockmgr.core import placeholder
from sockmgr.core.config import ServiceConfig
from sockmgr.core.errors import ConfigError
from sockmgr.core.spec import Accept
from sockmgr.presets import Fit

# -P: the working directory shall not hide our modules; the runtime adds it for the application's.
COMMAND = (sys.executable, "-P", "-m", "sockmgr.worker")
HANG_TIMEOUT = 60.0
BROKEN_EXITS = frozenset({2, 3})


def fit(service: ServiceConfig) -> Fit:
    """Return the command of a service that has `app`, and what is known of how it ends."""
    _check_installed(service)
    return Fit(
        name="app",
        argv=(*COMMAND, *_options(service), service.app),
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
    for option in ("certfile", "keyfile", "root_path"):
        if value := getattr(http, option):
            yield f"--{option.replace('_', '-')}={placeholder.literal(value)}"
    for proxy in http.trusted_proxies:
        yield f"--trusted-proxy={placeholder.literal(proxy)}"
    if not http.trusted_proxies:
        yield "--trusted-proxy="
    if http.http2:
        yield "--http2"
    if not http.access_log:
        yield "--no-access-log"


def _check_installed(service: ServiceConfig) -> None:
    importlib.invalidate_caches()  # it may have been installed since we started
    needed = [("uvicorn", "asgi", "serves it")]
    if service.interface == "wsgi":
        needed.append(("a2wsgi", "asgi", "serves it"))
    if service.http.http2 or service.http.protocol == "zttp":
        needed.append(("zttp", "http2", "parses HTTP for it"))
    for package, extra, purpose in needed:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"service.{service.name}.app = {service.app}: {package}, which {purpose}, is not "
                f"installed for {sys.executable}",
                do=f"pip install 'sockmgr[{extra}]' into that environment, or give a command",
            )

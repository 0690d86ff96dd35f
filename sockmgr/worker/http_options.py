"""How a worker speaks HTTP: the options that its command line and the config have in common.

Pure. sockmgr/config reads them from [service.NAME.http], and so has their defaults from here.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = ("auto", "httptools", "h11", "zttp")  # as uvicorn names them
LOOPS = ("auto", "asyncio", "uvloop")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
CLIENT_CERTS = ("none", "optional", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """The options that have the same name on both sides. Durations are seconds."""

    keep_alive: float = 5.0
    header_timeout: float = 20.0
    http2: bool = False
    loop: str = "auto"
    threads: int = 10
    certfile: str = ""
    keyfile: str = ""
    keyfile_password_file: str = ""
    ca_certs: str = ""
    client_certs: str = "none"
    root_path: str = ""
    proxy_protocol: bool = False
    log_level: str = "info"
    access_log: bool = True

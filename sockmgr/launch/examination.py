"""What `sockmgr check` tries out: whether an interpreter has the runtime, and whether TLS works.

A reload would show the same, later. Starts processes that end at once, and changes nothing.
"""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sockmgr.config.config import ServiceConfig
from sockmgr.config.spec import Spec
from sockmgr.errors import ConfigError
from sockmgr.kernel.spawn import Launch, identity
from sockmgr.launch import virtual_env
from sockmgr.launch.unlimited import unlimited
from sockmgr.worker.application import BrokenError
from sockmgr.worker.tls import files, load

TIMEOUT = 30.0  # for an interpreter to start
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, _NOT_YET_VALID; openssl/x509_vfy.h


def examine(service: ServiceConfig, spec: Spec) -> Iterator[str]:
    """Yield what harms `service`, a sentence each; raise ConfigError for what does not work."""
    for flaw in virtual_env.astray(service, dict(spec.env), spec.cwd):
        yield f"service.{service.name}: {flaw}"
    for keys, why in unlimited(service):
        yield f"{keys}: no effect here: {why}"
    if service.python:
        _try_interpreter(service, spec)
    if service.http.certfile:
        yield from _try_tls(service, spec)


def _try_interpreter(service: ServiceConfig, spec: Spec) -> None:
    shown = f"service.{service.name}.python = {service.python}"
    try:
        done = _run(spec, spec.executable, "-P", "-c", "import sockmgr.worker.__main__, uvicorn")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{shown}: it does not run: {error}", do="correct python") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise ConfigError(
            f"{shown}: it cannot run the application: {said[-1]}",
            do=f"install what is missing: {spec.executable} -m pip install 'sockmgr[asgi]'",
        )


def _try_tls(service: ServiceConfig, spec: Spec) -> Iterator[str]:
    at = f"service.{service.name}.http"
    http = service.http
    found: dict[str, Any] = {key: str(Path(spec.cwd, path)) for key, path in files(http).items()}
    if unseen := _unreadable(at, service, spec, found):
        yield unseen
        return
    try:
        context = load(replace(http, **found))
    except BrokenError as error:
        raise ConfigError(f"{at}: {error.what}", do=error.do) from None
    if flaw := _out_of_date(context):
        yield f"{at}.certfile = {http.certfile}: the certificate {flaw}: clients refuse it"


def _unreadable(at: str, service: ServiceConfig, spec: Spec, found: Mapping[str, str]) -> str:
    """Raise ConfigError if the service may not read its files; return a sentence if we may not."""
    for key, path in found.items():
        if not os.access(path, os.F_OK, effective_ids=True):
            continue  # load() has a better error for a file that is not there
        # A shell tries, as that user: access lists and the directories above count as well.
        may_try = os.geteuid() == 0 and service.user
        if may_try and _run(spec, "/bin/sh", "-c", 'test -r "$0"', path).returncode:
            raise ConfigError(
                f"{at}.{key} = {getattr(service.http, key)}: the user {service.user} may not read "
                f"{path}",
                do=f"give it to that user, who opens it: chown {service.user} {path}",
            )
        if os.geteuid() != 0 and not os.access(path, os.R_OK, effective_ids=True):
            return (
                f"{at}.{key} = {getattr(service.http, key)} was not looked at: you may not read it"
            )
    return ""


def _run(spec: Spec, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the user, directory and environment of the service."""
    env = dict(spec.env)
    launch = Launch(
        argv=argv, executable=argv[0], env=env, cwd=spec.cwd, user=spec.user, group=spec.group
    )
    return subprocess.run(
        [*identity(launch), *argv], env=env, cwd=spec.cwd, capture_output=True, text=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip


def _out_of_date(server: ssl.SSLContext) -> str:
    """Return what OpenSSL says of the dates of the certificate to a client that trusts it."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    shown = _meet(server, anybody).getpeercert(binary_form=True)
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strict.check_hostname = False
    strict.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    strict.load_verify_locations(cadata=shown or b"")
    try:
        _meet(server, strict)
    except ssl.SSLCertVerificationError as error:
        return {_EXPIRED: "has expired", _NOT_YET: "is not valid yet"}.get(error.verify_code, "")
    return ""


def _meet(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Return the client's end after a handshake in memory; raises SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there)
    for _ in range(4):  # flights, at most
        for end in (theirs, ours):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return theirs

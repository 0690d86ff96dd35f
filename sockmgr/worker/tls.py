"""Checks the certificate of the runtime, names the file at fault, and reads a client's certificate.

uvicorn itself speaks TLS. A client's certificate is passed to the application.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NoReturn

from sockmgr.worker.application import BrokenError
from sockmgr.worker.http_options import HttpOptions
from sockmgr.worker.options import Options

_DO = "correct it; files are looked for in cwd, and opened as the user of the service"
_FILES = ("certfile", "keyfile", "keyfile_password_file", "ca_certs")
_DEMANDS = {
    "none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED,
}  # fmt: skip


def files(http: HttpOptions) -> dict[str, str]:
    """Return the paths of files that are given, by their keys in [service.NAME.http]."""
    return {key: path for key in _FILES if (path := getattr(http, key))}


def arguments(options: Options) -> dict[str, Any]:
    """Return uvicorn's settings for TLS, {} without a certificate; raise BrokenError."""
    if not options.certfile:
        return {}
    load(options)
    return {
        "ssl_certfile": options.certfile,
        "ssl_keyfile": options.keyfile or None,
        "ssl_keyfile_password": _password(options),
        "ssl_ca_certs": options.ca_certs or None,
        "ssl_cert_reqs": _DEMANDS[options.client_certs],
    }


def load(http: HttpOptions) -> ssl.SSLContext:
    """Return a context that uses its files; raise BrokenError, which names the file at fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for key, path in files(http).items():
        try:
            Path(path).open("rb").close()
            if key in ("certfile", "ca_certs"):
                context.load_verify_locations(path)
        except ssl.SSLError as error:
            _blame(key, path, f"it holds no certificate in PEM ({_reason(error)})")
        except OSError as error:
            _blame(key, path, error.strerror or str(error))
    _load_key(context, http)
    return context


def _load_key(context: ssl.SSLContext, http: HttpOptions) -> None:
    password, asked = _password(http), False

    def tell() -> str:
        nonlocal asked
        asked = True
        return password or ""  # without this function OpenSSL would ask at the terminal

    key, path = ("keyfile", http.keyfile) if http.keyfile else ("certfile", http.certfile)
    try:
        context.load_cert_chain(http.certfile, http.keyfile or None, tell)
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            _blame(key, path, f"the key does not fit the certificate {http.certfile}")
        if asked and password is None:
            _blame(key, path, "the key is encrypted, and keyfile_password_file is not set")
        if asked:
            _blame("keyfile_password_file", http.keyfile_password_file, f"it does not open {path}")
        _blame(key, path, f"it holds no key that can be used ({_reason(error)})")


def extension(tls: ssl.SSLObject) -> dict[str, Any]:
    """Return the TLS extension of ASGI for a connection, with the client's certificate if any."""
    shown = tls.getpeercert(binary_form=True)
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(shown)] if shown else [],
        "client_cert_name": _name(tls.getpeercert() or {}) if shown else None,
        "client_cert_error": None,
        "tls_version": ssl.TLSVersion[(tls.version() or "").replace(".", "_")].value,
        "cipher_suite": None,
    }


def _password(http: HttpOptions) -> str | None:
    if not http.keyfile_password_file:
        return None
    return Path(http.keyfile_password_file).read_text().partition("\n")[0].rstrip("\r")


def _blame(key: str, path: str, why: str) -> NoReturn:
    raise BrokenError(f"cannot use {key} = {path}: {why}", _DO) from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


_SHORT = {
    "commonName": "CN", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "countryName": "C", "streetAddress": "STREET",
    "domainComponent": "DC", "userId": "UID",
}  # fmt: skip


def _name(shown: dict[str, Any]) -> str:
    """Return the name of a certificate's subject as RFC 4514 writes it: the last part first."""
    return ",".join(
        "+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(shown.get("subject", ()))
    )


def _escaped(value: str) -> str:
    text = "".join(f"\\{letter}" if letter in '"+,;<>\\' else letter for letter in value)
    text = f"\\{text}" if text.startswith(("#", " ")) else text
    return f"{text[:-1]}\\ " if len(text) > 1 and text.endswith(" ") else text

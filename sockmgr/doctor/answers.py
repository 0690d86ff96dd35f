"""Ask services that run as their clients do: what their probes, and their warm-up, ask for.

Sends a few requests to their listeners, and nothing else.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

from msgspec.structs import replace

from sockmgr.api.types import ListenerStatus, Status
from sockmgr.config import address
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.probe import HttpProbe, warm_up_like
from sockmgr.config.spec import Scheme
from sockmgr.doctor import processes
from sockmgr.doctor.finding import Check, Finding
from sockmgr.kernel.closing import closed_on_error

_NO_FAULT = ("1xx", "2xx", "3xx", "4xx")
_WARMS = ("2xx", "3xx", "401", "403")
# What to ask, for which key of the service, and what it means if it is not answered as expected.
_Question = tuple[Check, str, HttpProbe, str]
_NEVER_READY = (
    "workers that answer so do not get ready: a reload is aborted, and a worker that dies is not "
    "replaced"
)
_REPLACED = "workers that answer so are replaced, one after the other"
_COLD = "a warm-up by that path spares clients nothing; the reload goes on"
_FAILS = "clients get the same answer, and no probe keeps such a release from going live"


def examine(status: Status, config: Config) -> Iterator[Finding]:
    """Ask each service of which a worker is ready; `config` is the config that the manager runs.

    Its pid has to be the same here; of a manager in another network namespace nothing is asked.
    """
    listens = config.listens()
    for service in config.services if processes.shares_network(status.manager.pid) else ():
        running = status.services.get(service.name)
        for check, key, probe, why in _questions(service) if running and running.ready else ():
            streams = [n for n in service.listen if not listens[n].address.traits.is_datagram]
            name = probe.listener or streams[0]
            code, seen = _ask(service, probe, status.listeners[name])
            if seen:
                # Clients come by a path for a warm-up, too.
                is_fault = check is Check.WARM_UP_FAILS and not 400 <= code < 500
                which, means = (Check.ANSWERS_ERRORS, _FAILS) if is_fault else (check, why)
                yield which.found(
                    subject=f"service.{service.name}",
                    what=f"service.{service.name}{key}: GET {probe.path} on {name} {seen}",
                    why=means,
                    fix=f"have the application answer it, or correct {key[1:]}"
                    if key
                    else 'see what it prints (sockmgr logs); then add ready = { http = "/PATH" }',
                )


def _questions(service: ServiceConfig) -> Iterator[_Question]:
    ready, healthy = service.ready, service.healthy and service.healthy.probe
    if isinstance(ready, HttpProbe):
        yield Check.PROBE_FAILS, ".ready", ready, _NEVER_READY
    if isinstance(healthy, HttpProbe):
        yield Check.PROBE_FAILS, ".healthy", healthy, _REPLACED
    for path in service.rollout.warmup:
        request = replace(warm_up_like(ready), path=path, expect=_WARMS)
        yield Check.WARM_UP_FAILS, ".rollout.warmup", request, _COLD
    closed = service.http.proxy_protocol or service.http.client_certs == "required"
    if service.app and not closed and not isinstance(ready, HttpProbe):
        yield Check.ANSWERS_ERRORS, "", HttpProbe(path="/", expect=_NO_FAULT, timeout=10.0), _FAILS


def _ask(service: ServiceConfig, probe: HttpProbe, listener: ListenerStatus) -> tuple[int, str]:
    """Return the status of one answer, 0 for none, and what is wrong with it.

    That is "" if nothing is, or we may not ask.
    """
    try:
        sock = _connected(listener.address, probe.timeout)
    except OSError:  # other findings are about listeners
        return 0, ""
    connection = http.client.HTTPConnection("")  # a header says which host
    try:
        connection.sock = _secure(sock, probe) if service.http.certfile else sock
        own = {"Host": probe.host, "User-Agent": "sockmgr-doctor", "Connection": "close"}
        connection.request("GET", probe.path, headers=own | dict(probe.headers))
        answer = connection.getresponse()
    except TimeoutError:
        return 0, f"is not answered within {probe.timeout:g} s"
    except (OSError, ValueError) as error:  # ValueError: the host or a header cannot be sent
        return 0, f"is not answered: {str(error).lower()}"
    except http.client.HTTPException:
        return 0, "is answered by what is no HTTP/1.1"
    finally:
        sock.close()
        connection.close()
    if probe.expects(answer.status):
        return answer.status, ""
    place = answer.getheader("Location")
    to = f", to {place!r}" if place else ""
    wanted = f" (expected {', '.join(probe.expect)})" if probe.expect != _NO_FAULT else ""
    return answer.status, f"answers {answer.status}{wanted}{to}"


def _connected(where: str, timeout: float) -> socket.socket:
    found, _ = address.parse(where)
    if found.scheme is Scheme.TCP:
        return socket.create_connection((found.host, found.port), timeout)
    sock = socket.socket(socket.AF_UNIX)
    with closed_on_error(sock):
        sock.settimeout(timeout)
        sock.connect(f"\0{found.path}" if found.scheme is Scheme.ABSTRACT else found.path)
    return sock


def _secure(sock: socket.socket, probe: HttpProbe) -> ssl.SSLSocket:
    """Speak TLS, and take any certificate, as a probe does."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = probe.host.removeprefix("[").partition("]" if probe.host[:1] == "[" else ":")[0]
    return context.wrap_socket(sock, server_hostname=name)

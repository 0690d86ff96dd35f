"""The doctor asks services that run what their probes ask, and tells what they answer instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sockmgr.doctor.finding import Check
from tests.doctor.diagnosis import Found, sole
from tests.doctor.diagnosis import diagnose as diagnose_config
from tests.e2e.apps import ROOT
from tests.e2e.harness import Manager

CERTIFICATE = ROOT / "tests" / "worker" / "programs" / "tls" / "site.pem"
TLS = f'certfile = "{CERTIFICATE}"\nkeyfile = "{CERTIFICATE.with_suffix(".key")}"'
# Answers each path as the file `answers` says: by a status, and where that leads.
APP = """
import json
import sys
from pathlib import Path
async def app(scope, receive, send):
    assert scope["type"] == "http"
    status, to = json.loads(Path("answers").read_text()).get(scope["path"], (200, ""))
    headers = [(b"content-length", b"0")] + [(b"location", to.encode())] * bool(to)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body"})
"""


def diagnose(manager: Manager) -> Found:
    return diagnose_config(manager.config, "--control", str(manager.control))


def answering(directory: Path, **answers: tuple[int, str]) -> None:
    (directory / "answers").write_text(
        json.dumps({f"/{path}": how for path, how in answers.items()})
    )


def config(
    directory: Path, keys: str, *, http: str = "", address: str = "tcp://127.0.0.1:0"
) -> str:
    (directory / "shop.py").write_text(APP)
    return f"""
[listen]
http = "{address}"
[service.web]
app = "shop:app"
cwd = "{directory}"
{keys}
[service.web.http]
trusted_proxies = []
{http}
"""


ASKED = """
accept = "dispatch"
ready = { http = "/ready", timeout = "20s" }
healthy = { http = "/alive", expect = "2xx", every = "1h", timeout = "20s" }
rollout.warmup = ["/", "/login"]
"""


@pytest.mark.parametrize("way", ["tcp", "tls", "unix"])
def test_probes_and_warm_ups_that_a_service_answers_otherwise_are_found(
    tmp_path: Path, way: str
) -> None:
    address = f"unix://{tmp_path}/web.sock?mode=0666" if way == "unix" else "tcp://127.0.0.1:0"
    answering(tmp_path)
    text = config(tmp_path, ASKED, http=TLS if way == "tls" else "", address=address)
    with Manager(tmp_path, text) as manager:
        assert diagnose(manager) == []
        answering(tmp_path, ready=(301, "/ready/"), alive=(503, ""), login=(401, ""))
        ready, healthy = diagnose(manager)
        assert ready["check"] == healthy["check"] == Check.PROBE_FAILS.label
        assert ready["what"] == (
            "service.web.ready: GET /ready on http answers 301 (expected 200), to '/ready/'"
        )
        assert "a reload is aborted" in ready["why"]
        assert healthy["what"].endswith(".healthy: GET /alive on http answers 503 (expected 2xx)")
        assert "are replaced" in healthy["why"]
        for status, check in ((404, Check.WARM_UP_FAILS), (500, Check.ANSWERS_ERRORS)):
            answering(tmp_path, login=(status, ""))
            assert f"/login on http answers {status}" in sole(diagnose(manager), check)["what"]


def test_an_application_that_nobody_probes_and_that_answers_errors_is_found(
    tmp_path: Path,
) -> None:
    answering(tmp_path, **{"": (500, "")})
    with Manager(tmp_path, config(tmp_path, "")) as manager:
        found = sole(diagnose(manager), Check.ANSWERS_ERRORS)
        assert found["what"] == "service.web: GET / on http answers 500"
        assert "ready = { http" in found["fix"]
        answering(tmp_path, **{"": (404, "")})
        assert diagnose(manager) == []


# Says what the file `says` has, and closes the connection.
BLUNT = """
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
lent = socket.socket(fileno=3)
while True:
    client, _ = lent.accept()
    with client:
        client.recv(65536)
        client.sendall(open("says", "rb").read())
"""


def test_what_is_no_answer_at_all_is_found_as_well(tmp_path: Path) -> None:
    says = tmp_path / "says"
    says.write_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    command = json.dumps([sys.executable, "-S", "-E", "-c", BLUNT])
    keys = f'cwd = "{tmp_path}"\nready = {{ http = "/", timeout = "20s" }}'
    text = f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\ncommand = {command}\n{keys}'
    with Manager(tmp_path, text) as manager:
        assert diagnose(manager) == []
        for said, what in ((b"220 mail\r\n", "by what is no HTTP/1.1"), (b"", "remote end closed")):
            says.write_bytes(said)
            assert what in sole(diagnose(manager), Check.PROBE_FAILS)["what"]

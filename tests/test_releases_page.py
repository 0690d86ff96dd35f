"""docs/releases.md: its commands that judge a release pass an answer of 200, and nothing else."""

from __future__ import annotations

import http.server
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence

import pytest
import tomli

from tests.helpers.pages import ROOT, TOML

PAGE = (ROOT / "docs" / "releases.md").read_text()


class Release(http.server.BaseHTTPRequestHandler):
    """Answers by the status in the path, or 301 if it was asked without the header of a proxy."""

    def do_GET(self) -> None:
        is_https = self.headers["X-Forwarded-Proto"] == "https" or "healthz" in self.path
        status = int(self.path.split("/")[1]) if is_https else 301
        self.send_response(status if self.headers["Host"] == "shop.example" else 400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Release) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def probe() -> Sequence[str]:
    (text,) = (text for text in TOML.findall(PAGE) if "SOCKMGR_PROBE_URL" in text)
    found: Sequence[str] = tomli.loads(text)["service"]["web"]["ready"]["exec"]
    return found


def check() -> Sequence[str]:
    scripts = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (script,) = (text for text in scripts if "SOCKMGR_PROBE_URL" in text)
    return ("sh", "-c", script)


@pytest.mark.parametrize("argv", [probe(), check()], ids=["ready", "check"])
@pytest.mark.parametrize("status", [200, 301, 404, 500])
def test_only_a_200_is_passed(url: str, argv: Sequence[str], status: int) -> None:
    env = {"SOCKMGR_PROBE_URL": f"{url}/{status}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (status == 200), done.stdout + done.stderr


def test_a_check_says_what_was_answered(url: str) -> None:
    env = {"SOCKMGR_PROBE_URL": f"{url}/500", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(check(), env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "GET / answered 500\n"

"""`app =` with HTTP/2 under a real manager: reloads lose no request, on any number of streams."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.applications import config
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.helpers.http2 import CERTIFICATE, Http2Client

RELOADS = 2
CLIENTS, STREAMS, THINK = 16, 3, 0.01


class Http2Load:
    """Clients that keep their connections, as browsers and proxies do, until told to leave them."""

    def __init__(self, address: tuple[str, int], *, tls: bool) -> None:
        self._address, self._tls = address, tls
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        self.versions: Counter[str] = Counter()
        self.moves = self.retries = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                client = Http2Client(self._address, tls=self._tls)
                try:
                    self._use(client)
                finally:
                    client.close()
        except (OSError, AssertionError) as error:
            self.failures.append(repr(error))

    def _use(self, client: Http2Client) -> None:
        while not self._stopping.is_set():
            client.read_what_is_there()
            if client.goaways:
                self.moves += 1
                return
            for stream in [client.get() for _ in range(STREAMS)]:
                self._judge(client, stream)
            time.sleep(THINK)  # what a client does between two pages

    def _judge(self, client: Http2Client, stream: int) -> None:
        try:
            status, body = client.answer(stream)
        except (OSError, AssertionError) as error:
            last = client.goaways[-1] if client.goaways else None
            if last is None or stream <= last:
                self.failures.append(f"stream {stream}, GOAWAY {client.goaways}: {error!r}")
            else:  # RFC 9113, 6.8: nobody has looked at it, so it may be sent again
                self.retries += 1
            return
        if status == "200":
            self.versions[json.loads(body)["version"]] += 1
        else:
            self.failures.append(f"stream {stream}: {status} {body!r}")


@pytest.mark.parametrize("more", ["", 'accept = "dispatch"\npreload = true'])
def test_reloads_lose_no_stream_of_connections_that_are_kept(more: str, tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    tls = not more
    text = config(app, more=more).replace("access_log", "http2 = true\naccess_log")
    if tls:
        text = text.replace("access_log", f'certfile = "{CERTIFICATE}"\naccess_log')
    with Manager(tmp_path, text) as manager:
        address = manager.target().address
        assert isinstance(address, tuple)
        with Http2Load(address, tls=tls) as load:
            for version in map(str, range(2, RELOADS + 2)):
                app.deploy(version)
                assert manager.reload().code == 0
                wait_for(partial(load.versions.get, version), f"version {version} to answer")
            wait_for(lambda: len(manager.workers()) == 2, "the old workers to be gone")
        assert not load.failures
        assert not load.retries
        assert load.moves >= CLIENTS

"""A client of HTTP/2 over one connection, which may have several requests open at a time."""

from __future__ import annotations

import select
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

PATIENCE = 30.0
CERTIFICATE = Path(__file__).parents[1] / "worker" / "programs" / "localhost.pem"
NO_STREAM = 2**31 - 1
WINDOW = 65_535  # RFC 9113, 6.9.2


class _Machine(H2ConnectionStateMachine):
    """Goes on with the open streams after a GOAWAY; h2 does not: python-hyper/h2#1181."""

    _transitions = H2ConnectionStateMachine._transitions | {  # noqa: SLF001, RUF100
        (state, ConnectionInputs.RECV_GOAWAY): (None, state)
        for state in (ConnectionState.IDLE, ConnectionState.CLIENT_OPEN)
    }


@dataclass
class Answer:
    """What has come for one request."""

    status: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: bool = False


class Http2Client:
    """Owns its connection. A response that does not come whole fails the test."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: bool = False,
        lazy: bool = False,
        first: bytes = b"",
    ) -> None:
        """Connect, with TLS by ALPN, else by prior knowledge; `lazy`: see allow().

        `first` is what is sent before that.
        """
        self._sock = socket.create_connection(address, timeout=PATIENCE)
        self._sock.sendall(first)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.create_default_context(cafile=str(CERTIFICATE))
            context.set_alpn_protocols(["h2", "http/1.1"])
            self._sock = wrapped = context.wrap_socket(self._sock, server_hostname="localhost")
            assert wrapped.selected_alpn_protocol() == "h2"
        self._http = H2Connection(H2Configuration())
        self._http.state_machine = _Machine()
        self._http.initiate_connection()
        self._lazy = lazy
        self.answers: dict[int, Answer] = {}
        self.goaways: list[int | None] = []  # the last stream that each named
        self.pings = 0
        self.closed = False
        self.flush()

    def fileno(self) -> int:
        """Return the descriptor, borrowed."""
        return self._sock.fileno()

    def get(self, path: str = "/") -> int:
        """Send a request; return its stream."""
        return self.request("GET", path, end=True)

    def post(self, path: str = "/") -> int:
        """Begin a request with a body: see body()."""
        return self.request("POST", path, end=False)

    def request(self, method: str, path: str, *fields: tuple[str, str], end: bool) -> int:
        """Send the head of a request; `end` says that it has no body. Return its stream."""
        stream = self._http.get_next_available_stream_id()
        self.answers[stream] = Answer()
        head = {":method": method, ":path": path, ":scheme": "http", ":authority": "x"}
        self._http.send_headers(stream, [*head.items(), *fields], end_stream=end)
        self.flush()
        return stream

    def body(self, stream: int, data: bytes, *, end: bool) -> None:
        """Send more of the body of a request."""
        self._http.send_data(stream, data, end_stream=end)
        self.flush()

    def reset(self, stream: int) -> None:
        """Want no answer any more."""
        self._http.reset_stream(stream)
        self.flush()

    def window(self, stream: int) -> int:
        """Return how much of a body may be sent now."""
        return self._http.local_flow_control_window(stream)

    def answer(self, stream: int) -> tuple[str, bytes]:
        """Wait for the whole answer; return status and body."""
        answer = self.answers[stream]
        while not answer.ended:
            assert not answer.reset
            assert not self.closed, f"closed before the end of {answer}"
            self.read()
        return answer.status, answer.body

    def goaway(self) -> int | None:
        """Wait for the next GOAWAY; return the last stream that it names."""
        known = len(self.goaways)
        while len(self.goaways) == known:
            assert not self.closed, "closed without a GOAWAY"
            self.read()
        return self.goaways[known]

    def ended(self) -> bool:
        """Wait for the end of the connection; True if it ends in order."""
        while not self.closed:
            self.read()
        return all(answer.ended for answer in self.answers.values())

    def wait(self) -> None:
        """Wait until there is something to read."""
        assert select.select([self], [], [], PATIENCE)[0]

    def has_come(self, data: bytes) -> bool:
        """Whether this is among what was not read yet; without TLS."""
        return data in self._sock.recv(65536, socket.MSG_PEEK)

    def read_what_is_there(self) -> None:
        """Read without waiting."""
        pending = getattr(self._sock, "pending", lambda: 0)
        while not self.closed and (pending() or select.select([self], [], [], 0)[0]):
            self.read()

    def read(self) -> None:
        """Wait for something to come, and take it."""
        data = self._sock.recv(65536)
        if not data:
            self.closed = True
            return
        for event in self._http.receive_data(data):
            self._happened(event)
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent."""
        self._sock.sendall(self._http.data_to_send())

    def allow(self, stream: int, size: int) -> None:
        """Let so much more than WINDOW of an answer come, if it does not always."""
        self._http.increment_flow_control_window(size)
        self._http.increment_flow_control_window(size, stream)
        self.flush()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _happened(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            answer = self.answers[event.stream_id]
            answer.headers = [
                (name.decode(), value.decode("latin-1")) for name, value in event.headers
            ]
            answer.status = dict(answer.headers)[":status"]
        elif isinstance(event, DataReceived):
            self.answers[event.stream_id].body += event.data
            if event.flow_controlled_length and not self._lazy:
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id].ended = True
        elif isinstance(event, StreamReset):
            self.answers[event.stream_id].reset = True
        elif isinstance(event, ConnectionTerminated):
            self.goaways.append(event.last_stream_id)
        elif isinstance(event, PingReceived):
            self.pings += 1

"""Another host, in a network namespace of its own, that forges TCP packets field by field.

The process of that host sends what it reads on standard input, a JSON line each, completes any
handshake whose answer reaches it, and says what came of it. It is run by tests.private_queue.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

NEAR, FAR = "near0", "far0"  # the two ends of the wire
NEAR_MAC, FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NEAR_4, FAR_4 = "10.8.0.1", "10.8.0.2"
NEAR_6, FAR_6 = "fd00:8::1", "fd00:8::2"
NO_MAC = "00:00:00:00:00:00"
SYN, PUSH, ACK = 2, 8, 16
LISTENING = 0.03  # seconds of silence; an answer would come at once
SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A TCP segment with everything that its sender controls."""

    source: str
    target: str
    sport: int
    dport: int
    flags: int = SYN
    seq: int = 1000
    ack: int = 0
    data: bytes = b""
    macs: tuple[str, str] = (NEAR_MAC, FAR_MAC)  # to, from

    def frame(self) -> bytes:
        """Return it as an Ethernet frame to the near host, checksums included."""
        family = socket.AF_INET6 if ":" in self.source else socket.AF_INET
        ends = b"".join(socket.inet_pton(family, each) for each in (self.source, self.target))
        tcp = struct.pack(
            "!HHIIBBHHH", self.sport, self.dport, self.seq, self.ack, 5 << 4, self.flags, 65535,
            0, 0,
        )  # fmt: skip
        tcp += self.data
        pseudo = ends + struct.pack("!IHBB", len(tcp), 0, 0, socket.IPPROTO_TCP)
        tcp = tcp[:16] + struct.pack("!H", _checksum(pseudo + tcp)) + tcp[18:]
        if family == socket.AF_INET6:
            head = struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + ends
            return self._ethernet(0x86DD) + head + tcp
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, socket.IPPROTO_TCP, 0)
        head += ends
        head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
        return self._ethernet(0x0800) + head + tcp

    def _ethernet(self, kind: int) -> bytes:
        macs = (bytes.fromhex(mac.replace(":", "")) for mac in self.macs)
        return b"".join(macs) + struct.pack("!H", kind)


def _checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class FarHost:
    """What the near host has the far one do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **what: object) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def send(self, segments: Sequence[Segment]) -> int:
        """Have these sent; return how many answers the far host got, and completed."""
        found = self.ask(frames=[each.frame().hex() for each in segments])
        return int(found["completed"])

    def connect(self, source: str, sport: int, target: str, dport: int) -> str:
        """Have it connect as any client does; return "" or why it could not."""
        return str(self.ask(connect=[source, sport, target, dport])["error"])


@contextmanager
def far_host() -> Iterator[FarHost]:
    """Make the wire, from a network namespace that is ours alone, and the host at its other end."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.helpers.forger"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "here\n"
            _ip(f"link add {NEAR} address {NEAR_MAC} type veth peer name {FAR} address {FAR_MAC}")
            _ip(f"link set {FAR} netns {process.pid}")
            for command_ in (
                "link set lo up", f"link set {NEAR} up", f"addr add {NEAR_4}/24 dev {NEAR}",
                f"-6 addr add {NEAR_6}/64 dev {NEAR} nodad",
            ):  # fmt: skip
                _ip(command_)
            far = FarHost(process)
            far.ask(up=True)
            yield far
        finally:
            assert process.stdin
            process.stdin.close()


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


# --- The far host --------------------------------------------------------------------------------


def _serve() -> None:
    print("here", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "up" in asked:
            for command in (
                "link set lo up", f"link set {FAR} up", f"addr add {FAR_4}/24 dev {FAR}",
                f"-6 addr add {FAR_6}/64 dev {FAR} nodad",
            ):  # fmt: skip
                _ip(command)
            print("{}", flush=True)
        elif "frames" in asked:
            completed = _send([bytes.fromhex(each) for each in asked["frames"]])
            print(json.dumps({"completed": completed}), flush=True)
        else:
            print(json.dumps({"error": _connect(*asked["connect"])}), flush=True)


def _send(frames: Sequence[bytes]) -> int:
    """Send frames, and the last segment of each handshake of which the second one comes here."""
    completed = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        # It hears its own frames as well, and must not lose an answer among them.
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        wire.bind((FAR, 3))
        for frame in frames:
            wire.send(frame)
        while select.select([wire], [], [], LISTENING)[0]:
            if last := _last(wire.recv(2048)):
                wire.send(last.frame())
                completed += 1
    return completed


def _last(frame: bytes) -> Segment | None:
    """Return the answer to a SYN-ACK; None to any other frame."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0800:
        family, addresses, at = socket.AF_INET, 26, 34
    elif kind == 0x86DD:
        family, addresses, at = socket.AF_INET6, 22, 54
    else:
        return None
    if len(frame) < at + 20 or frame[at + 13] != SYN | ACK:
        return None
    size = 4 if family == socket.AF_INET else 16
    its, ours = (
        socket.inet_ntop(family, frame[addresses + n * size : addresses + (n + 1) * size])
        for n in (0, 1)
    )
    sport, dport, seq, ack = struct.unpack_from("!HHII", frame, at)
    return Segment(
        source=ours, target=its, sport=dport, dport=sport, flags=ACK, seq=ack, ack=seq + 1
    )


def _connect(source: str, sport: int, target: str, dport: int) -> str:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(2)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((source, sport))
            sock.connect((target, dport))
        except OSError as error:
            return str(error)
    return ""


if __name__ == "__main__":
    _serve()

"""Entries as journald reads them: https://systemd.io/JOURNAL_NATIVE_PROTOCOL, written anew."""

from __future__ import annotations


def decode(data: bytes) -> dict[str, str]:
    """Return the fields of one entry."""
    fields: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + length], rest[8 + length :][:1], rest[9 + length :]
            assert end == b"\n"
        fields[name.decode()] = value.decode()
        data = rest
    return fields

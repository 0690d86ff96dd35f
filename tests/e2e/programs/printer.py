"""A worker that prints what it is told, on stdout and on stderr: `printer.py FIFO`."""

from __future__ import annotations

import os
import sys

os.mkfifo(sys.argv[1])
# Read-write, so that it has no end when whoever told something closes it: fifo(7).
with os.fdopen(os.open(sys.argv[1], os.O_RDWR), "r") as told:
    for line in told:
        os.write(1, f"out {line}".encode())
        os.write(2, f"err {line}".encode())

"""A worker that says what it is told, and drains for SECONDS (1) when it is told by QUIT.

`draining.py [SECONDS] [fork]`: with `fork` it has a child that does the same.
"""

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0


def say(word: str) -> None:
    """Write it whole, whoever else writes."""
    os.write(1, f"{word}\n".encode())


def told(number: int, _: FrameType | None) -> None:
    """Say so, and do it."""
    say(signal.Signals(number).name)
    if number == signal.SIGQUIT:
        time.sleep(seconds)
        say("drained")
        sys.exit(0)


def main() -> NoReturn:
    """Wait for signals."""
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, told)
    if "fork" in sys.argv:
        os.fork()
    say("ready")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()

"""How a process ended, in words."""

from __future__ import annotations

import msgspec

# Not signal.Signals, whose names differ from platform to platform: transcripts compare these.
SIGNAL_NAMES = {
    1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1",
    11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 24: "XCPU", 25: "XFSZ", 31: "SYS",
}  # fmt: skip


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ended, whose exit `status` is that of Popen.returncode.

    `recycled`: it left by itself, and is replaced. `clean`: it drained as it should.
    """

    status: int
    recycled: bool = False
    clean: bool = False

    def __str__(self) -> str:
        """Return a word or two for a log line."""
        if self.recycled:
            return "recycled"
        return "clean" if self.clean else describe_exit(self.status)


def describe_exit(status: int) -> str:
    """Say what an exit status (as Popen.returncode) means."""
    if status >= 0:
        return f"exited with status {status}"
    name = SIGNAL_NAMES.get(-status)
    return f"was killed by signal {-status}" + (f" ({name})" if name else "")

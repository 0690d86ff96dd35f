"""How a program is started: what it is given, the programs before it, and the start itself."""

from sockmgr.kernel.spawn.chain import SHELL
from sockmgr.kernel.spawn.launch import Launch
from sockmgr.kernel.spawn.start import file_actions, spawn
from sockmgr.kernel.spawn.util_linux import LIMITS, identity, user_number

__all__ = ["LIMITS", "SHELL", "Launch", "file_actions", "identity", "spawn", "user_number"]

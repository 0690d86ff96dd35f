"""Start a program: what it gets, the programs that stand before it, and the start itself."""

from sockmgr.kernel.spawn.chain import SHELL
from sockmgr.kernel.spawn.launch import Launch
from sockmgr.kernel.spawn.start import file_actions, silent_actions, spawn
from sockmgr.kernel.spawn.util_linux import identity, uid_of

__all__ = ["SHELL", "Launch", "file_actions", "identity", "silent_actions", "spawn", "uid_of"]

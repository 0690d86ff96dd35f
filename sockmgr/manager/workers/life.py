"""The three states of a worker: requested from its template, running, and not made."""

from __future__ import annotations

from dataclasses import dataclass, field

from sockmgr.kernel.process import Process
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.workers.boot_priority import BootPriority
from sockmgr.manager.workers.exit import Exit
from sockmgr.manager.workers.template import Request, Template
from sockmgr.manager.workers.tree import Tree

NOBODY = Process(0, pidfd=-1)  # of a worker that its template has not made yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The process of a worker, from its start to its end, and what goes with it."""

    process: Process
    exit: Exit
    tree: Tree
    priority: BootPriority

    def close(self) -> None:
        # Whatever watches the process goes first, the pidfd that it watches last.
        self.exit.close()
        self.tree.close()
        self.priority.forget()
        self.process.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    request: Request
    template: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMade:
    """A worker that never had a process; `words` are what its template said last."""

    words: LastWords = field(default_factory=LastWords)

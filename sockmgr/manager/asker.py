"""Who asked for what is being done now, for people: the name of a user, or of a signal.

Each request is a task of its own, so each has a value of its own. "" stands for the manager itself.
"""

from __future__ import annotations

from contextvars import ContextVar

# Not an argument of all that leads from a request to its rollout, most of which has no use for it.
ASKER: ContextVar[str] = ContextVar("asker", default="")

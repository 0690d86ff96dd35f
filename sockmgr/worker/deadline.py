"""How a worker shares out the time it has to leave. Imports nothing: the doctor asks, too."""

FINISH = 5.0  # from the second stop signal, which says that the rest must be done now, to the kill
LAST_SHARE, LAST_SECONDS = 0.25, 5.0  # of drain_timeout, for what remains after the deadline


def last(timeout: float) -> float:
    """Return how long before the manager kills the rest is cut off, and shut down."""
    return min(LAST_SECONDS, timeout * LAST_SHARE)


def enough(idle: float) -> float:
    """Return the least `timeout` of which so much is left before that."""
    return min(idle / (1 - LAST_SHARE), idle + LAST_SECONDS)

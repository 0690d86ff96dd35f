"""How a worker divides the time that it has for a drain. Imports nothing: doctor uses it as well.

All times are in seconds.
"""

FINISH = 5.0  # from the second stop signal, which says to finish now, to the kill
LAST_SHARE, LAST_SECONDS = 0.25, 5.0  # the end of drain_timeout, for cutting off and shutting down


def last(timeout: float) -> float:
    """Return how long before the manager's kill a worker cuts off what remains, and shuts down."""
    return min(LAST_SECONDS, timeout * LAST_SHARE)


def enough(idle: float) -> float:
    """Return the shortest `timeout` that leaves `idle` seconds before its last() part."""
    return min(idle / (1 - LAST_SHARE), idle + LAST_SECONDS)

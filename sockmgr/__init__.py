"""sockmgr: a zero-downtime, socket-activation process manager for Linux."""

__version__ = "0.9.0"

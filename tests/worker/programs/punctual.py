"""Edges, but all WebSockets are told goodbye in the very moment of the deadline."""

from __future__ import annotations

import random

from edges import app

__all__ = ["app"]

random.uniform = lambda least, _: least

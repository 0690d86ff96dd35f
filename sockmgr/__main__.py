"""`python -m sockmgr` is `sockmgr`."""

from __future__ import annotations

from sockmgr.cli import main

main()

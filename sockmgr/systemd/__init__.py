"""Our side of systemd: what it passed, what it is told, and what it keeps for the next manager."""

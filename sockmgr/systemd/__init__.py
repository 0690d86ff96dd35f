"""Our side of systemd: what it passed, what it hears, what it holds, and the text of units."""

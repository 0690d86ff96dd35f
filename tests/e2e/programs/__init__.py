"""Workers that misbehave on command, and a parent that passes sockets as systemd does."""

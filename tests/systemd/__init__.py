"""The manager under a real systemd, and the units for it."""

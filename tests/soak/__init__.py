"""A manager under mixed load, reloads of all kinds and random faults, for a long time."""

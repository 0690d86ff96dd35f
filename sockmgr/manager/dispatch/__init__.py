"""Accept in the manager, and pass each connection to a worker: `accept = "dispatch"`."""

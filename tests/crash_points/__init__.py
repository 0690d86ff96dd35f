"""A manager that is killed at each of its crash points, under load, and is followed by the next."""

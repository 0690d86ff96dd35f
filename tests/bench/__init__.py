"""Reloads, idling and starting, measured beside other tools in one run."""

"""Tests of the pure parts of dev, which are instant, and of what it shows."""

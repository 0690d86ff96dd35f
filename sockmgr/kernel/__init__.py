"""Thin shells around the kernel, one file a facility: no decisions, no imports of each other."""

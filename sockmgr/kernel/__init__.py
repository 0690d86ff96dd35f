"""Thin shells around the kernel, one file a facility. They decide nothing.

A facility imports only those that all share, such as procfs and accounts (see pyproject.toml).
"""

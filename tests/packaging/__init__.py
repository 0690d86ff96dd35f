"""Tests of what is installed: wheel, manual pages, packages."""

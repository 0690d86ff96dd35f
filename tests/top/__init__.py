"""Tests of `sockmgr top`, but for those on a terminal, which are in tests/e2e."""

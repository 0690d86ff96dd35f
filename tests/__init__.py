"""The tests of sockmgr."""

"""`sockmgr dev`: save a file, and the new code serves. Nothing here is used by `sockmgr run`."""

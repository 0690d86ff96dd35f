"""`sockmgr top`: a live view of one manager, and keys to steer it."""

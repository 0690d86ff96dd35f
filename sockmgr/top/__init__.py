"""`sockmgr top`: a live view of one manager, with keys to reload, scale and restart workers."""

"""`sockmgr torture`: faults under load for any server, and what they cost its clients."""

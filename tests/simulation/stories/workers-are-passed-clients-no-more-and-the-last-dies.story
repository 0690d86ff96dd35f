# A client was passed to a worker that dies before it takes it, and the next generation accepts for
# itself. It waited for ever in the channel of the dead.
family 104 settles
tells listen=a probation=0.25 max_failed_starts=1 start_concurrency=1 max_draining=1 exclusive=yes
crash 0 0
die 0 0
wait 1 0
connect 2 0
die 0 0
boot 0 0
die 0 0
accept 0 0
crash 1 0
edit 1 0

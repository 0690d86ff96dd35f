# The kernel is short of memory for the program that feeds other queues, for longer than a manager lives.
# The next one found the former queue empty, and so took it for quiet though clients still came there.
family 102
tells feed-failed
boot 0 0
stop 1 0
die 1 0
fail 42598 0
ready 0 0
die 1 0
connect 0 0

# The kernel is short of memory for the program that feeds other queues, and the manager dies before
# the next try. The next manager took for fed what the state says, and never fed it.
family 129
tells feed-failed
boot 0 0
fail 33586 0
reload 3 0
restart-worker 1 0
restart-worker 0 0
ready 1 0
die 1 0

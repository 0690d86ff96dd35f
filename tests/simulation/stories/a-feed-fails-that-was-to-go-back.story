# A rollout is taken back, and the kernel is short of memory for the program that feeds the old queue
# again. For the second until the next try, nobody waited for who stood in that queue.
family 205
tells feed-failed
die 0 0
stop 0 0
die 0 0
connect 0 0
wait 1 0
ready 0 0
leave 0 0
reload 0 0
ready 0 0
fail 10 0
leave 1 0

# A rollout is taken back, and the kernel is short of memory for the program that feeds the old
# queues. With the next fact it worked. But nobody waited for the queue of the generation that was
# taken back, where a client stood.
family 102
tells feed-failed
reload 3 0
boot 0 0
boot 0 0
connect 0 0
fail 2 0
reload 0 0
decide 0 0
wait 0 0

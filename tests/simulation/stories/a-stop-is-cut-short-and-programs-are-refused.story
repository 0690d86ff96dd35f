# A stop was cut short, so that the next manager opens the listener anew, and the kernel is short of
# memory for the program that feeds it. Nobody looked after the queue where clients waited meanwhile.
family 61
tells feed-failed
boot 0 0
reload 0 0
ready 0 0
wait 1 0
stop 1 0
fail 2 0
die 1 0
connect 0 0

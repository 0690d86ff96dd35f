# Two services exchange listeners, and the next manager has one look after the queues that nobody had.
# One of them had the number of a lease that the other service has, where both still had a listener:
# a worker was started on that, and both services answered there.
family 214 settles
tells ABORTED 2
reload 11 1
wait 8 0
boot 0 0
ready 0 0
die 0 0
connect 0 0
wait 1 0
leave 0 0
hang 1 0
connect 0 0

# A generation with another listener is fed for want of better. The queue of the current one was
# quiet, though clients still came to it: it was replaced when its next worker died.
family 214
tells spawn 1.1
wait 13 0
reload 2 0
ready 0 0
wait 1 0
connect 0 0
crash 2 0

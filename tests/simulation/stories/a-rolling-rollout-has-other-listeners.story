# The only worker hangs, and a rolling reload moves the service to another listener. The new
# generation inherited the queue where clients wait, of which it has only the other listener: the
# next old worker was told to stop at once, though a client waited for it.
family 184
tells hangs
ready 0 0
connect 1 0
reload 0 0
hang 1 0
reload 1 0
decide 0 1
ready 0 0
boot 0 0

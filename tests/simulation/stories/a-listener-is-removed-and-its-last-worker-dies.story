# A client was passed to a worker that dies before it takes it, and the next generation has not its
# listener. It waited for ever in the channel of the dead.
family 199 settles
tells web@1.1 (pid 2) is dead
wait 5 0
ready 0 0
wait 9 0
connect 1 0
wait 1 0
reload 1 0
boot 0 0
accept 0 0
crash 0 0

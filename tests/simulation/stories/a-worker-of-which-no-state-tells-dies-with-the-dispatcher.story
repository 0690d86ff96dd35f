# A manager dies as it starts a worker, the worker is passed a client and dies, and the dispatcher dies,
# which alone had its channel. The pretended kernel waited for that client.
family 126 settles
tells the dispatcher is dead
crash 1 0
die 0 0
wait 1 0
boot 0 0
connect 3 0
accept 1 0
crash 1 0
dispatcher-dies 0 0

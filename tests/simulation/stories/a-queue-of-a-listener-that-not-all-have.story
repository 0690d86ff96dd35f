# In an exchange of listeners a worker that clients were moved to ended while its manager died. The next
# one gave its queue to a worker of the other generation, which has not the listener where they waited.
family 27 settles
tells spawn 2.1 of v6 on lease 3
ready 0 0
wait 0 0
wait 12 0
wait 10 0
crash 0 0
crash 0 0
reload 53489 0
boot 0 0
die 0 0
leave 2 0
connect 0 0
finish 0 0
wait 3 0

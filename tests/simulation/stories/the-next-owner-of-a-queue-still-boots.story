# The workers of a listener that their service has no more end while a client's handshake there is
# open. Who is to have the listener boots still, and nobody looked after the queue.
family 22 settles
tells web: exit 1.2 0
tells spawn 2.2 of v5 on lease 0
boot 0 0
reload 5 0
boot 0 0
reload 56296 0
ready 0 0
connect 0 0
wait 1 0
die 0 0
ready 0 0

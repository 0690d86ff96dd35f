# Two services exchange listeners. A client begins a handshake at one, its new worker dies, and the
# exchange goes back: of the queue where the client waits, the service to which the listener went
# back knew nothing.
family 143 settles
tells go back 1 api
reload 56059 0
boot 0 0
connect 0 0
crash 1 0
die 1 0

# Two services exchange listeners. The last worker of the earlier generation of api is ended early,
# while a client begins a handshake in its queue, number 0. That is for web to look after, which had
# another queue of this number, and so took it for its own.
family 129 settles
tells COMMITTED 2
reload 24931 0
boot 0 0
connect 1 0
boot 0 0
wait 3 0
crash 12 0
wait 8 0
wait 2 0
die 1 0

# The only generation is passed connections, and its hook still runs, so it has no worker: the next
# manager did not tell the dispatcher of the service, which then closed the client that it held.
family 18
connect 0 0
edit 1 0
complete 0 0
die 1 0
ready 0 0
accept 0 0
crash 0 0
die 1 0

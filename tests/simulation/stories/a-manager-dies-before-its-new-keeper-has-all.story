# A keeper is killed, and its manager as it gives all to the next one: others have the queues still.
family 76
die 0 0
keeper-dies 1 0
die 0 0

# Reloads, one after the other, add job and take it away together with others. The manager dies before
# the second has begun, and the next cannot do what the config says by then. It ran job for ever, of
# which its config in force knew nothing.
family 145 settles
tells it cannot do what the config says by now
reload 16624 0
reload 43391 0
reload 0 0
die 1 0

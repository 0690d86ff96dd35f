# A reload adds api, at the listener that web has until the cut-over. It was fed from its start,
# when none of its workers was ready, and web took the clients back when its next worker started,
# for good.
family 191 settles
tells let 1 CUT_OVER
stop 0 0
die 2 0
edit 2 0

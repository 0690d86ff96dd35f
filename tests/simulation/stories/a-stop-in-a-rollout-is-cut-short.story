# A stop in the middle of a rollout is cut short, and the listener is opened anew. A lease that was
# unquiet is fed again by that, and is to be waited for all the same.
family 148 settles
tells its listener had to be replaced by a new socket
ready 0 0
reload 0 0
connect 0 0
boot 0 0
stop 1 0
die 1 0

# A worker of a listener that its service has no more ended, and its queue was renewed: the keeper was not told.
family 209 settles
tells go back 1 api
ready 0 0
reload 3 0
reload 18310 0
die 0 0
ready 0 0
fail 0 0
die 0 0
wait 1 0

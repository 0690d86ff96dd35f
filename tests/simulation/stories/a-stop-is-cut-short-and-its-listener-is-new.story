# In a stop the queue that is fed is waited for as well. A manager died in it, and its listeners had to be
# made anew: the next one fed that queue, and waited for it without end.
family 198 settles
tells its listener had to be replaced by a new socket
ready 0 0
accept 0 0
connect 0 0
health 0 0
storm 0 0
boot 0 0
keep 0 0
dispatcher-dies 1 0
hang 0 0
crash 0 0
stop 1 0
decide 0 0
die 0 0
crash 0 0

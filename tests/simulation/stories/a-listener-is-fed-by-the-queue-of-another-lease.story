# A generation that was taken back helps out, at another listener. The dispatcher accepts from one
# queue for all workers: that was the one of its lease, also at the listener that it has not, where
# nobody would have waited for that queue.
family 21
tells feed 1*1 3*1
reload 3622 0
scale 1 0
ready 2 0
crash 0 0
hang 1 0
boot 0 0
accept 1 0
accept 0 0

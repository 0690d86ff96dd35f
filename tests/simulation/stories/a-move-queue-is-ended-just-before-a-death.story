# A move queue is ended, and the manager dies before that is saved: the next one gives it to new workers.
family 120 settles
reload 51356 0
die 0 0
wait 6 0

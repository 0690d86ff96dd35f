# Two services exchange listeners. Of the two workers that have one meanwhile, one dies, so that the
# exchange goes back. Of the dead one's queue nobody knew until the other had ended: the service that
# had given it up took its lease for its own listener.
family 30 settles
tells go back 1 api
connect 0 0
reload 41752 0
scale 0 0
boot 0 0
connect 0 0
crash 1 0

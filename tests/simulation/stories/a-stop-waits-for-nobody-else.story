# A stop never ended: a worker was kept for clients of a listener that its successor has not, though in a
# stop nobody comes for them.
family 156 settles
tells web: stop
crash 0 0
reload 0 0
ready 0 0
reload 3 0
health 0 0
ready 0 0
stop 1 0

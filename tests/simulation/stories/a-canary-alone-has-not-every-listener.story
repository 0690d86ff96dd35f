# A canary has other listeners, and the only old worker is unhealthy. Nobody was fed where clients of
# the old listener came, and the worker of the next reload got them before it was proven.
family 79
tells CANARY 2
boot 0 0
reload 10 0
ready 1 0
health 0 0
reload 0 0
connect 0 0
crash 3 0

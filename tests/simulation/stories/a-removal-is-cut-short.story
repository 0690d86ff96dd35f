# The first generation of a service that was just added fails, so it stops, and the manager dies
# meanwhile. The next one does not know that it was to stop.
family 115 settles
tells the next manager goes on
reload 17416 0
reload 2 0
boot 0 0
wait 13 0
die 1 0

# A worker is recycled for its age, the other one is unhealthy, and fewer are wanted: the one that
# was well was told to stop while a client waited, and then nobody was left who was.
family 85
tells scale 1
boot 0 0
wait 11 0
connect 1 0
health 1 0
scale 0 0

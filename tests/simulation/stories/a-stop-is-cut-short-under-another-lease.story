# A stop is cut short, and the next manager replaces the listener by a new socket, which fed its
# first queue. The workers have another one: clients waited in the first for ever.
family 16
tells the next manager goes on
reload 2 0
boot 0 0
accept 0 0
stop 0 0
die 1 0
reload 0 0
connect 0 0

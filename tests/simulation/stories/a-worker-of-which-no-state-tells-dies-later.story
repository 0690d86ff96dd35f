# As a worker of which no state tells, but it dies after the next manager has come, which has told it to
# stop: it takes what it has before it ends, unless it crashes.
family 100
tells the dispatcher is dead
wait 5 0
die 0 0
wait 1 0
boot 0 0
accept 0 0
connect 1 0
dispatcher-dies 0 0
die 0 0
crash 0 0

# A generation is cut over that has not the listener of the current one. Clients went on coming to
# each queue that had been fed there, also to that of a worker that had to go.
family 112
tells CUT OVER to 5
storm 0 0
ready 0 1
ready 0 0
connect 1 0
wait 10 0
ready 0 0
reload 1 0
ready 1 0
crash 2 0
reload 1 0
wait 6 0
ready 1 0
wait 0 0
edit 0 0
connect 0 0
decide 0 0

# The only worker of web dies while a reload moves web to another listener. The new generation is fed
# for want of better, and has not the old listener: the clients who came there were nobody's, and the
# worker that was started for them was told to stop at the commit.
family 209
tells CUT OVER to 2
wait 11 0
reload 53937 1
ready 0 0
ready 1 0
wait 10 0
reload 0 0
crash 0 0
connect 3 0
ready 56631 0
ready 0 0
wait 1 0

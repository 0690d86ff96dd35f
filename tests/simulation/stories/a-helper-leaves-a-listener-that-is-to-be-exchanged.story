# Nobody of the current generation of web serves, and a worker that was taken back helps out, while
# web and api exchange listeners. At the cut-over it was told to stop at once, though a client waited
# for it: web had the listener still, as api was not cut over yet.
family 217
tells let 2 START
wait 10 0
reload 27520 0
connect 2 0
wait 3 0
crash 20443 0
reload 8 0
boot 0 0

# A canary was taken back and the current generation is dead, so that the canary helps. A third one,
# which was to get the listener of another service, goes back with its group as its worker is about
# to be ready: nobody may meet that, but it was taken for one that serves, and the canary left out.
family 229
tells go back 1 web
boot 0 0
reload 2 0
crash 0 0
leave 1 0
ready 21351 0
storm 0 0
reload 10 0
hook 0 0
health 1 0
boot 0 0
connect 1 0
wait 5 0
ready 0 0

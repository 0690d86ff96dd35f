# A move queue is stored with the worker that has it, and ended before the state names it.
family 153 settles
hook 1 0
wait 6 0
reload 28748 0
ready 60833 0
boot 0 0
wait 1 0

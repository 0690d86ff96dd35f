# web has a worker for each of its queues, and api is to get its listener. Between the reload and its
# start, web has a new worker with a lease that was free: api chose the same one, and workers of both
# services accepted from one queue.
family 105
tells CUT OVER to 3
hook 0 0
fail 0 0
ready 0 0
hang 1 0
storm 0 0
hook 1 0
reload 33298 0
ready 1 0
wait 1 0
boot 0 0
hook 1 0
reload 49747 0
hang 62849 0
wait 1 0
boot 0 0
connect 0 0

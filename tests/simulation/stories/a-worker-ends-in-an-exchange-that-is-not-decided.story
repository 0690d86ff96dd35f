# In an exchange that is not decided, the worker of api ends, and api counts on the queue of its former
# listener again. It waits for who is in there as soon as it has a worker, or leaves them to web.
family 15
tells api@2.1 (pid 2) has answered everybody
fail 0 0
reload 52987 0
die 0 0
boot 0 0
connect 1 0
wait 1 0
die 0 0
ready 1 0
wait 3 0
leave 1 0
finish 0 0

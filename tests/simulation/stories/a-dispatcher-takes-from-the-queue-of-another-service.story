# Two services whose connections are dispatched were to exchange listeners, and went back. One of
# them accepted from a queue in which clients of the other one waited.
family 150
tells go back
connect 0 0
wait 13 0
wait 10 0
reload 1 0
storm 0 0
ready 0 0
ready 0 0
ready 0 0
wait 6 0
connect 2 0
complete 0 0
leave 0 0
finish 0 0
accept 0 0
wait 1 0
boot 0 0
accept 3 0
dispatcher-dies 1 0
wait 6 0
wait 7 0

# The rollout of api by which it gets a fails, and its worker helps out there until the first ones are
# ready. Meanwhile a new web is to get a. Clients of a were meant for neither, so each took them for
# its own: api fed its queue, web was cut over and did not know of that, and never fed its own.
family 115
tells COMMITTED 1
reload 56824 0
wait 0 0
wait 9 0
reload 20485 0
ready 1 0
reload 0 0
wait 7 0
storm 0 0
boot 0 0
wait 13 0

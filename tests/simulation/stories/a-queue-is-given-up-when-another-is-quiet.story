# The wait for a queue ends by its deadline in the moment in which another one is found to be empty.
family 109
reload 0 0
reload 27239 0
decide 0 0
boot 0 0
wait 0 0
leave 1 0
die 1 0
connect 1 0
boot 0 0
storm 0 0
ready 0 0
finish 0 0
wait 2 0
boot 0 1
connect 0 0
wait 6 0
wait 0 0

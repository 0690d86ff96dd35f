# api is being removed, so that web alone may get its listener. The manager dies, and the next one
# forgets the removal. api could not get the listener of web, as only web was on its way, and both
# had one listener for good. A reload of one service is not about what the config says of others,
# and who gives a listener away goes together with those who get it.
family 143 settles
tells the next manager goes on
reload 3 0
ready 0 0
storm 0 0
wait 1 0
boot 0 0
wait 1 0
reload 1 0
die 1 0

# api is new, and was cut over together with web, which gave it its listener. When both went back,
# the workers of api were told to stop while a client waited for them.
family 216
tells ABORTED 3
reload 15647 0
edit 1 0
wait 9 0
die 1 0
ready 0 0
ready 0 0
storm 0 0
ready 0 0
ready 0 0
connect 2 0
crash 1 0

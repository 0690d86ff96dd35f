# api has given its listener to web, and one of its new workers is unhealthy. An old worker of api
# helped out, and took the clients of web at the listener that it once had.
family 219 settles
tells COMMITTED 3
reload 2 0
storm 0 0
ready 0 0
connect 1 0
hook 0 0
reload 24989 0
boot 0 0
die 1 0
decide 0 0
boot 0 0
connect 0 0
wait 1 0
health 2 0

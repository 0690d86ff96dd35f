# The first generation of web is taken back. While it waits for clients at its only lease, a reload
# that exchanges listeners has web get that of api. As web has no current generation, its lease was
# fed there at once, though api served.
family 197 settles
tells ABORTED 1
reload 47831 0
boot 0 0
wait 0 0
wait 9 0
connect 1 0
wait 7 0
reload 0 0
reload 7 0
wait 15 0

# Two reloads come in the same moment. The first gives api a listener of web, and the second, of which
# that was not known yet, gave it to web: two services had it.
family 22 settles
tells refused, web is to get
ready 0 0
reload 56242 1
reload 0 0

# Two services were cut over to one listener in one moment: the kernel fed the first, the second thought it did.
family 24 settles
tells api: let 1 CUT_OVER
reload 11 1
reload 15 0

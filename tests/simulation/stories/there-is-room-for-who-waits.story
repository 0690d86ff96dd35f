# The new generation may have more connections, and clients waited for room all the same.
family 177 settles
tells keeps them
reload 9 0
ready 0 0
ready 0 0
accept 1 0
connect 3 0
connect 3 0
keep 1 0
hook 1 0

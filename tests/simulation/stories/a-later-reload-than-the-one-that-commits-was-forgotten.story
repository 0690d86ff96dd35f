# A reload waits for another one, and the manager dies. The next one finds the config as it was before
# both, so that nobody asks for the second reload any more: what that said is not in force when the
# first one commits.
family 216
reload 0 0
reload 3 0
edit 0 0
die 1 0
boot 0 0
wait 1 0
die 0 0
wait 0 0
die 0 0

# Its successor has one listener more, which nobody feeds yet. Clients who come there are to wait
# where its first worker will be, and the kernel is short of memory for the program that says so.
# That ended the manager.
family 154 settles
tells the next 1 programs are refused
edit 1 0
die 1 0
crash 2 0
fail 2 0
wait 1 0

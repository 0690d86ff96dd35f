# A service that is exclusive got another listener, and the queue of its former listener's workers, in
# which a client waited: its workers could not answer there.
family 228 settles
tells accept=dispatch listen=a
reload 3 0
wait 7 0
die 0 0
connect 0 0
crash 0 0
die 0 0
reload 2 0

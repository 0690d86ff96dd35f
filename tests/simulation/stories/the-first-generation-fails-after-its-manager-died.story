# A reload adds the service job, and the manager dies. Under the next one the first generation of
# job is taken back. Nobody knew any more that a service without any is to go: it stayed, and ran
# nothing.
family 106 settles
tells ABORTED 1
reload 48691 0
die 1 0
reload 1 0
crash 2 0

# A stop takes an exchange of listeners back, while a worker that has one meanwhile still serves there.
family 143
tells the manager is stopping
reload 56059 0
boot 0 0
connect 0 0
stop 1 0

# A reload removes api, and while that drains another one gives its listener to web. The manager dies,
# and the next one cannot do what the config says. It did not remember that api was to stop, and ran
# both at the listener for ever.
family 136 settles
tells it cannot do what the config says by now
ready 1 0
reload 14 0
reload 1 0
die 0 0
boot 0 0

# A reload removed a service, together with others; a later one wanted it back before it went, and failed.
# It was removed no more, and had the listener that another service had got.
family 143 settles
tells go back 3 web
reload 7 0
ready 0 0
ready 0 0
wait 1 0
hang 3 0
reload 4311 0
crash 0 0
ready 30710 0
boot 0 0
crash 0 0
reload 61093 0
wait 5 0
crash 2 0

# web moves to another listener and back, by two reloads, and api is reloaded by a config that has
# no web. When the first committed, the old listener refused clients for good, though the next
# generation of the same service was on its way there.
family 122 settles
tells COMMITTED 3 for #2
reload 2 0
reload 0 0
reload 5 0

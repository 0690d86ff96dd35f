# Three services wait for their rollout together as the manager dies, and what the config says by
# then is refused. When the new service among them had committed, the config in force never heard of
# it.
family 103 settles
tells COMMITTED 1 for 
reload 0 0
reload 7 0
reload 0 0
die 1 0

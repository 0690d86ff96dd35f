# web rolls, a later reload removes it, together with a change of api, and the manager dies. The
# rollout committed under the next one, which took web out of the config in force, though it ran on.
family 196 settles
tells the next manager goes on
reload 31435 0
reload 52958 0
ready 1 0
die 0 0
ready 3 0
hang 1 0

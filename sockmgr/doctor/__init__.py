"""Find what may be wrong with a config, this machine, installed units and running workers.

Each check is a function that yields findings. Nothing is changed, signalled or connected to.
"""

"""What may be wrong: of a config, of this machine, of installed units, of running workers.

One file a patient, each check a function that yields findings. Looks only: nothing is changed,
signalled or connected to.
"""

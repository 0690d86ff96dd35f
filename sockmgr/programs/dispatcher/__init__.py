"""Accept connections and pass each to a worker: the program behind `accept = "dispatch"`.

A process of its own, one a manager, that serves on while there is no manager. It is run bare, so it
imports nothing but what is light: of the standard library, and of two rooms one module each.
"""

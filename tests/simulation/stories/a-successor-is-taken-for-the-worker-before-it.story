# The dispatcher told the next manager that a worker takes connections, which died just then. The
# worker that came to its place counted as ready while it booted.
family 45 settles
tells web@1.1 (pid 1) is dead
connect 1 0
die 0 0
ready 0 0
accept 0 0
leave 0 0

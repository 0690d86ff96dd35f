# A reload removes web, which ends at once, and a later one starts it anew. The verdict of the first
# came last, and took web out of the config in force.
family 229 settles
tells COMMITTED 1 for #1
wait 6 0
storm 0 0
reload 15 0
reload 4 0

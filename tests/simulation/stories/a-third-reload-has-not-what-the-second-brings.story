# Three reloads of two services, before any has its verdict. The second gives api its listener back,
# the third is about web alone, by a config in which nobody has that. When the first committed, only
# the last config that was loaded was asked who has the listener: it refused clients from then on.
family 157 settles
tells COMMITTED 3 for #2, #3
reload 38757 0
reload 35855 0
reload 3 0

# A reload of an exclusive service turns accept to dispatch. The new worker gets the lease of the old
# one, which is fed already, so that no Feed came, and the dispatcher was never told to accept from
# that queue: nobody answered any more.
family 123 settles
tells COMMITTED 2
reload 3 0

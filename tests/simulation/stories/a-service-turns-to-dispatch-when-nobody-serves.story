# Nobody serves yet, and a reload turns accept to dispatch. The new worker gets the lease where
# clients wait, which is fed already. As what is fed did not change, the dispatcher was never told
# to pass anything: all clients waited for ever.
family 30 settles
tells CUT OVER to 2
reload 37867 0
connect 1 0

# A service whose workers are passed connections, and none of which has started, gets the listener of
# another by an exchange. Its first lease was that of nobody yet, so its dispatcher accepted at the new
# listener as well, where a worker of the other service still answers.
family 161 settles
hook 1 0
connect 0 0
crash 0 0
reload 37652 0

# A worker is stored when it starts, and ends before the state names it: its pidfd stayed in the store.
family 226 settles
ready 0 0
health 0 2
wait 10 0
reload 0 0

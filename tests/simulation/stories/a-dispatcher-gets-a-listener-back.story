# An exchange goes back, and api, whose connections are dispatched, has its listener again. The
# workers of web still answered in their own queue there, and the dispatcher took from it as well.
family 181
tells go back
reload 55185 0
boot 0 0
connect 2 0
health 1 0
ready 0 0
accept 1 0

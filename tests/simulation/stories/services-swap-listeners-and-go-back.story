# web and api exchange listeners, and the worker of web crashes: both go back. The new worker of
# api, which is to go, gets ready before the old one. It was fed for want of better, at the
# listener of web, whose clients were never given back.
family 124 settles
tells web was taken back
reload 48038 0
crash 2 0

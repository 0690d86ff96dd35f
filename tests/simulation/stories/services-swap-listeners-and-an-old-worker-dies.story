# web and api swap their listeners. The old worker of web ends before the cut-over, so that its
# new generation was fed for want of better: at the listener of api, where api served. After the
# cut-over the successor of the old worker took a back from api, for good.
family 197 settles
tells stops by itself
boot 0 0
reload 17743 0
leave 0 0

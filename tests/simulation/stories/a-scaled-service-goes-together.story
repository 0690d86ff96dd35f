# web has been scaled to more workers than surge lets start at once, and exchanges listeners with
# api. So it was replaced bit by bit, though a group has one instant: before that, old workers left
# clients at a listener that the new ones had not.
family 86
tells scale 2
scale 2 0
reload 62783 0
connect 2 0
boot 0 0
boot 0 0

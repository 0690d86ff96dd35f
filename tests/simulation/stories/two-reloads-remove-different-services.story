# Two reloads of all together: the first removes web, the second api. Both committed at once, and
# each removed its own, so that nothing ran any more. What the later one says of a service counts.
family 222 settles
tells COMMITTED 2 for #1
reload 10 0
reload 1943 0

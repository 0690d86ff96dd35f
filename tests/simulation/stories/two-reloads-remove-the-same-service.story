# All services go together. Two reloads come without the service web, the second before the first
# has its verdict. When the second has its own, web is gone already, and the caller got a KeyError
# for it.
family 23 settles
tells somebody reloads all 2 times
reload 7569 0
storm 0 0

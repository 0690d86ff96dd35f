# A reload removes api, which ends at once, and rolls web. The manager dies before the verdict on
# web. The next one goes on with web, and took api for a service of the config in force for ever:
# its listener stayed open, and nobody served it.
family 101 settles
tells the next manager goes on
reload 2735 0
wait 0 0
die 1 0

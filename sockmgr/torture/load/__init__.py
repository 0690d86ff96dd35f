"""The load judge: sends HTTP requests to a server here and gives every one exactly one outcome."""

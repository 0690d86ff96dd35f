"""Guess what a project is and how it is run, from the texts of its files. Reads no file."""

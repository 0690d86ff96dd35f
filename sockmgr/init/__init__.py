"""What a project looks like, and what it needs to run: texts in, a guess out. Reads no file."""

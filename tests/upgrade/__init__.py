"""What is noticed when a manager of another version becomes this one, under load."""

"""Real managers with real servers under load."""

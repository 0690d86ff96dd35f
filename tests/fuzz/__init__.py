"""Inputs that nobody meant: whatever comes, no exception but ours, no hang and no growth."""

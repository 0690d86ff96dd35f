"""Steering: pools of queues at one address, and the programs that choose among the queues."""

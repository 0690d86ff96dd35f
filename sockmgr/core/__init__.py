"""What is decided: values, the fleet's state machine, the config. No I/O, no clock, no chance."""

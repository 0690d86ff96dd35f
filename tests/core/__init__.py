"""Tests of the pure core: instant, on a fake clock, without a process or a socket."""

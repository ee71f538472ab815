"""What telephone protocols share: keys, answering machines, the log of calls."""

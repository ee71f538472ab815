"""One call at a time: the loop between a door, the core and the models."""

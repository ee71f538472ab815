"""One call at a time: the loop between a transport, the core and the models."""

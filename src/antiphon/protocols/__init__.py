"""One package per protocol: a pure `codec.py`, and its routes in `server.py`."""

"""Protocols, a package each: a pure `codec` (bytes and JSON <-> what happened, what to do) and a `server`."""

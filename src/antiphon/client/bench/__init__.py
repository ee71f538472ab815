"""Measurements of a whole server from the caller's end of a telephone line, ours and a peer's by the same means."""

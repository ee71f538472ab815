"""Codecs, one per protocol: bytes and JSON <-> what happened, what to do. No I/O, no audio work, no calls."""

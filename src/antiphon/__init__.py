"""Antiphon: a self-hosted voice agent server."""

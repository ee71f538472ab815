"""Models that run in other processes of the same cluster."""

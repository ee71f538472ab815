"""Models that run in other processes of the same cluster. Knows no call and no network of its own."""

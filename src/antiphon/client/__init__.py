"""Clients of a running server: simulated callers, the microphone, benches. They use the wire like anybody else."""

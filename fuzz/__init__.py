"""Fuzzers: damaged input for what strangers reach. `make fuzz` runs each module here that has a `main`."""

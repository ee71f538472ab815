"""The API of coqui's xtts-streaming-server. See docs/protocols/xtts.md."""

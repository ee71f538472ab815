"""Wyoming, the protocol of Home Assistant's voice services. See docs/protocols/wyoming.md."""

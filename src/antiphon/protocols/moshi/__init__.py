"""The protocol of Kyutai's moshi-server, speech to text and text to speech. See docs/protocols/moshi.md."""

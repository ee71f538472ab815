"""Twilio's voice webhooks, Media Streams and REST API, and the dialects of Telnyx and Plivo."""

"""The telephone: webhooks, media streams and what an agent may do on the line."""

"""OpenAI's HTTP API: recordings, speech, chat, models. See docs/protocols/openai-http.md."""

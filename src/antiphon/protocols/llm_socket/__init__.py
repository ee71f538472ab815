"""The websocket of the language model service: a prompt in, its answer streamed out."""

"""The OpenAI Realtime API, `/v1/realtime`: docs/protocols/realtime.md.

Pure, without any I/O: `codec` is the protocol as one object, made of `client_events` (what the client's events do),
`server_events` (what the client is told of the core's actions), `input_audio_buffer`, `items`, `responses`,
`session_config`, `frames` (text frames in the client's dialect), `beta` (the older dialect), `schema`, `audio_formats`
and `ids`; `effects` is what it asks for. `unmute` is the codec of Unmute's dialect.

With I/O: `server` (the websocket), `connection` (a session over any transport), `out_of_band` (responses beside the
conversation), `webrtc`, `webrtc_calls` and `webrtc_playout`, `unmute_server`. Source of the protocol: the types of the
`openai` package 3.52.0.
"""

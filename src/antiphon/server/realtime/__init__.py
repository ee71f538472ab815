"""The OpenAI Realtime API, `/v1/realtime`: docs/protocols/realtime.md.

`route` the websocket, `connection` a session's life over any transport, `conductor` what the client's events do,
`intake` its audio, `door` what the session says to it, `asides` responses out of band.
"""

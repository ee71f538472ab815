"""The OpenAI Realtime API, `/v1/realtime`: docs/protocols/realtime.md.

`route` the websocket, `connection` a session's life over any transport, `conductor` what the client's events do,
`intake` its audio, `door` what the session says to it, `asides` responses out of band. WebRTC: `rtc_route` its HTTP,
`rtc_calls` the calls, `rtc_peer` one peer, `rtc_track` and `playout` the voice. Unmute's dialect: `unmute` the
connection, `unmute_door` its session's side, `unmute_http` its routes.
"""

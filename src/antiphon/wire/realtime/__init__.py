"""The OpenAI Realtime protocol, both dialects: events in, events out.

`shapes` what clients may send, `session` the session object, `items` the conversation as the client knows it,
`responses` one response from `response.created` to `response.done`, `encoder` the core's actions as events, `beta` the
older dialect, `audio` the three formats. Knows no websocket, no session and no model. Source: the types of the `openai`
package 3.52.0; see docs/protocols/realtime.md.
"""

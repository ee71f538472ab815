"""OpenAI's HTTP API as bytes and dictionaries: what a request asks for, what an answer looks like.

Field names and shapes: the `openai` package's types and what its releases really send (docs/protocols/openai-http.md).
Knows no web framework, no model and no key.
"""

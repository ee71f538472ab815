"""Server-sent events as OpenAI frames them: a line of JSON each, and a word at the end."""

from __future__ import annotations

from typing import Any

import msgspec

CONTENT_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Proxies hold answers back unless they are told not to."""
DONE = b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def failed(message: str) -> bytes:
    """An error in mid-stream: the SDK raises it."""
    return event(
        {
            "error": {
                "message": message,
                "type": "server_error",
                "param": None,
                "code": "model_error",
            }
        }
    )

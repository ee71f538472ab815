"""The HTTP side of OpenAI's API: recordings, speech, chat, models, client secrets. docs/protocols/openai-http.md."""

from __future__ import annotations

from fastapi import FastAPI

from antiphon.server.openai_http import chat, listing, realtime_secrets, speech, transcriptions
from antiphon.server.openai_http.work import Places

LLM_PREFIX = "/llm/v1"
"""Chat and one model only: some clients (Unmute) take the model from the list, and want exactly one in it."""


def include(app: FastAPI) -> None:
    """Add the routes."""
    app.state.places = Places(app.state.settings.server.max_requests)
    for part in (transcriptions, speech, chat, listing, realtime_secrets):
        app.include_router(part.router, prefix="/v1", tags=["openai"])
    app.include_router(chat.router, prefix=LLM_PREFIX, include_in_schema=False)
    app.include_router(listing.llm_router, prefix=LLM_PREFIX, include_in_schema=False)

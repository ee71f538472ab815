"""What a client of `/ws/conversation` may choose from, and what it has chosen.

Knows the settings and the codec's messages, no socket.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends, Request

from antiphon.call.model_tasks import Agent
from antiphon.config.sections import AgentSettings
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, ProtocolError, suggest
from antiphon.models.ports import Kind, ModelInfo
from antiphon.protocols.browser import codec
from antiphon.protocols.browser.codec import LEVELS
from antiphon.server.admission import Calls
from antiphon.server.security import authorize


class ClientOptions:
    """Of one call. What was asked for stays until something else is."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._prompt = settings.prompt
        self._instructions = ""

    def agent(self, wishes: codec.StartCall | codec.ChangeOptions, agent: Agent) -> Agent:
        """`agent`, with what the client asks for. Raises ProtocolError for a preset that there is not."""
        settings = self._settings
        if wishes.agent and wishes.agent not in settings.presets:
            known = suggest(wishes.agent[:40], settings.presets)
            raise ProtocolError(f"there is no agent {wishes.agent[:40]!r}{known}")
        if wishes.agent is not None:
            self._prompt = settings.presets.get(wishes.agent, settings.prompt)
        if wishes.instructions is not None:
            self._instructions = wishes.instructions.strip()
        asked = f"\n\nThe caller asks of you: {self._instructions}" if self._instructions else ""
        voice = agent.voice if wishes.voice is None else wishes.voice or settings.voice
        language = agent.language if wishes.language is None else wishes.language
        return replace(
            agent,
            prompt=self._prompt + asked,
            voice=voice,
            language=language or settings.language,
            level=(isinstance(wishes, codec.StartCall) and wishes.level) or agent.level,
        )


def policy_for(start: codec.StartCall, policy: Policy) -> Policy:
    """The owner's policy for what this client can do and how it wants to be listened to."""
    extensions = codec.agreed(start)
    return replace(
        policy,
        client_can_clear="clear" in extensions,
        client_reports_played="played" in extensions,
        auto_turns=start.listen == "open",
    )


options_router = APIRouter(prefix="/api", tags=["page"], dependencies=[Depends(authorize)])


@options_router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """Empty lists: nothing to choose, or not known before the models are loaded.

    `languages`: ISO 639-1 codes that speech to text and text to speech both know; empty: any.
    """
    calls: Calls = request.app.state.calls
    agent = calls.settings.agent
    stt, tts = _info(calls, Kind.STT), _info(calls, Kind.TTS)
    return {
        "agents": list(agent.presets),
        "voices": list(tts.voices) if tts else [],
        "languages": _languages(stt, tts),
        "levels": list(LEVELS),
        "voice": agent.voice,
        "language": agent.language,
        "level": agent.level,
        "resume_s": calls.settings.server.resume_s,
    }


def _info(calls: Calls, kind: Kind) -> ModelInfo | None:
    try:
        return calls.models.info(kind)
    except AntiphonError:
        return None


def _languages(*infos: ModelInfo | None) -> list[str]:
    known = [set(info.languages) for info in infos if info is not None and info.languages]
    return sorted(set.intersection(*known)) if known else []

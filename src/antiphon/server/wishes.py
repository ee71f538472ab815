"""What a client of `/ws/conversation` may choose: who answers, in which voice and language, and how turns end.

Knows the settings and the codec's messages, no socket.
"""

from __future__ import annotations

from dataclasses import replace

from antiphon.config.sections import AgentSettings
from antiphon.core.policy import Policy
from antiphon.errors import ProtocolError, suggest
from antiphon.session.runners import Agent
from antiphon.wire import conversation as wire


class Wishes:
    """Of one call. What was asked for stays until something else is."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._prompt = settings.prompt
        self._instructions = ""

    def agent(self, wishes: wire.Start | wire.Configure, agent: Agent) -> Agent:
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
            level=(isinstance(wishes, wire.Start) and wishes.level) or agent.level,
        )


def policy_for(start: wire.Start, policy: Policy) -> Policy:
    """The owner's policy for what this client can do and how it wants to be listened to."""
    extensions = wire.agreed(start)
    return replace(
        policy,
        client_can_clear="clear" in extensions,
        client_reports_played="played" in extensions,
        auto_turns=start.listen == "open",
    )

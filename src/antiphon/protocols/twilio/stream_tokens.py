"""A ticket for one call: handed out with the answer to a webhook, and taken back by the stream that follows.

Bounded, in memory: the webhook and its stream must reach the same process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from antiphon.call.model_tasks import Agent

LIFE_S = 60.0
"""Twilio connects the stream within a second of the answer."""
_MAX_TICKETS = 10_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is known of a call before its audio comes."""

    call_id: str
    """The phone company's, for instance a CallSid."""
    caller: str = ""
    called: str = ""
    outbound: bool = False
    """We have called them."""
    agent: Agent | None = None
    """Who answers, if not the configured agent."""
    greeting: str | None = None
    """The first words, if not the configured ones."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further facts for the agent's prompt. They come from outside and are not to be trusted."""


class StreamTokens:
    """Each token is good once, for its own call, for a minute."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._tickets: dict[str, tuple[float, Ticket]] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, ticket: Ticket) -> str:
        """-> a token of 256 random bits, safe in a URL's path."""
        now_s = self._now_s()
        while self._tickets:  # in order of their age
            oldest = next(iter(self._tickets))
            if self._tickets[oldest][0] > now_s and len(self._tickets) < _MAX_TICKETS:
                break
            del self._tickets[oldest]
        token = secrets.token_urlsafe(32)
        self._tickets[token] = (now_s + LIFE_S, ticket)
        return token

    def redeem(self, token: str, call_id: str) -> Ticket | None:
        """The ticket, once. A token that comes with another call's name is spent all the same."""
        until_s, ticket = self._tickets.pop(token, (0.0, None))
        if ticket is None or until_s <= self._now_s():
            return None
        return ticket if secrets.compare_digest(ticket.call_id.encode(), call_id.encode()) else None

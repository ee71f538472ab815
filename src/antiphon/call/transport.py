"""What a call needs of the client's side of a call, whatever its protocol.

A transport is synchronous and never blocks: it translates and puts into a bounded outbox of its own. When the outbox is
full it tells the call that the client is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from antiphon.core.actions import Action
from antiphon.core.conversation import ConversationView
from antiphon.models.ports import Pcm16


@dataclass(frozen=True, slots=True)
class TransportAudio:
    """How this client takes the agent's voice."""

    rate_hz: int = 24_000
    lead_ms: int = 240
    """Audio sent ahead of its playing time. Small, so that an interruption has little to take back; large enough to
    cover the network's jitter."""
    chunk_ms: int = 60
    paced: bool = True
    """False: everything is sent as soon as it is made (files, clients that buffer)."""
    align_ms: int = 1
    """Pieces end at multiples of this wherever there is enough audio."""
    listen_hz: int = 16_000
    """Rate at which the caller's voice is listened to, where the voice activity model takes it: no higher than what
    the client sends, for there is nothing to hear up there."""


class Transport(Protocol):
    audio: TransportAudio

    def notice(self, action: Action) -> None:
        """Something the client may want to know. Transports ignore what their protocol has no word for.

        `Play` comes before the audio that it starts, and says from where in the reply that is.
        """
        ...

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        """The next piece of the agent's voice, at `audio.rate_hz`."""
        ...

    def drop_audio(self, reply: str) -> None:
        """The client is to forget what it has not played of this reply."""
        ...

    def hang_up(self, reason: str) -> None:
        """The call is over; what is in the outbox is still sent."""
        ...


class Nobody:
    """The transport of a call that is over."""

    audio = TransportAudio()

    def notice(self, action: Action) -> None:
        pass

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        pass

    def drop_audio(self, reply: str) -> None:
        pass

    def hang_up(self, reason: str) -> None:
        pass


class ObservedCall(Protocol):
    """What an observer may look at of a call."""

    @property
    def now_ms(self) -> int: ...

    @property
    def view(self) -> ConversationView: ...

"""What the codec asks for: frames to send, events for the core, audio to hear, work for the models.

The codec hands out effects one at a time and each is carried out before the next is asked for, so that what follows
may depend on what the core made of it. Some are answered: their docstring says with what.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from antiphon.audio.framing import Pcm16
from antiphon.core.events import Event
from antiphon.core.history import HistoryView, Item
from antiphon.core.policy import Policy
from antiphon.protocols.realtime.frames import Send
from antiphon.protocols.realtime.responses import Response
from antiphon.protocols.realtime.session_config import AgentParams


class CallView(Protocol):
    """What the codec may look at: the call, and what its owner configured."""

    @property
    def heard_ms(self) -> int:
        """The caller's audio that the call has heard, in whole windows."""
        ...

    @property
    def auto_turns(self) -> bool:
        """Speech detection decides where turns end."""
        ...

    @property
    def history(self) -> HistoryView: ...
    @property
    def live_reply(self) -> tuple[str, str] | None:
        """Id and history item of the reply that the client knows of and that has not ended."""
        ...

    @property
    def owner_policy(self) -> Policy: ...
    @property
    def owner_voice(self) -> str: ...
    @property
    def voices(self) -> Collection[str]:
        """Those that text to speech has."""
        ...

    def is_taken(self, core_id: str) -> bool:
        """A history item of this id exists, or is announced."""
        ...

    def runs(self, name: str) -> bool:
        """Whether a function of this name is run by the server, so that the client must not."""
        ...

    def heard_audio(self, start_ms: int, end_ms: int) -> Pcm16:
        """The caller's voice between two positions, 16 kHz."""
        ...


@dataclass(frozen=True, slots=True)
class Post:
    """An event for the core."""

    event: Event


@dataclass(frozen=True, slots=True)
class Hear:
    """More of the caller's audio."""

    pcm: Pcm16
    rate_hz: int


@dataclass(frozen=True, slots=True)
class AwaitRoom:
    """Go on when the call can take more of the caller's audio."""


@dataclass(frozen=True, slots=True)
class Breathe:
    """A long piece of work: let others have their turn."""


@dataclass(frozen=True, slots=True)
class FlushAudio:
    """No more audio is coming for now: what is left of the last window is scored as well."""


@dataclass(frozen=True, slots=True)
class UseAgent:
    """Who answers from now on."""

    params: AgentParams


@dataclass(frozen=True, slots=True)
class Denoise:
    """Noise suppression from now on; None: as the owner has it."""

    level: int | None


@dataclass(frozen=True, slots=True)
class TranscribeSpeech:
    """Answered with the words of this audio; None: they could not be found."""

    data: bytes
    format: str


@dataclass(frozen=True, slots=True)
class ToBase64:
    """Answered with this audio in base64. Minutes of it take their time."""

    data: bytes
    format: str
    wanted: str


@dataclass(frozen=True, slots=True)
class RespondOutOfBand:
    """Generate a response beside the conversation. Answered with what is wrong with that; None: nothing."""

    response: Response
    history: tuple[Item, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CancelOutOfBand:
    """Answered with whether such a response was under way."""

    response_id: str


@dataclass(frozen=True, slots=True)
class ClearPlayback:
    """Play nothing of what waits in the track of WebRTC."""


Effect = (
    Send
    | Post
    | Hear
    | AwaitRoom
    | Breathe
    | FlushAudio
    | UseAgent
    | Denoise
    | TranscribeSpeech
    | ToBase64
    | RespondOutOfBand
    | CancelOutOfBand
    | ClearPlayback
)
Steps = Generator[Effect, Any, Any]
"""Effects, each carried out before the next; what is sent in is the answer of the one before."""

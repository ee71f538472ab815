"""The call's side of a telephone: the agent's voice into media frames, marks as the ledger of what was heard.

A mark follows every piece, named `generation:reply:ms`. A `clear` begins a new generation: the peer echoes all pending
marks then, and those say nothing of what was heard. Everything leaves through one ordered outbox, and the call
stops its producer before it asks for a `clear`, so no audio can overtake one.
"""

from __future__ import annotations

import asyncio
import logging

from antiphon.audio import g711
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.models.ports import Pcm16
from antiphon.protocols.twilio.codec import AudioFormat, MediaEncoder
from antiphon.server.outbox import Outbox

log = logging.getLogger(__name__)

_CHUNK_MS = 100
"""Ten wake-ups a second per call instead of fifty."""
_MARK_MS = 120
"""Audio in one frame, at most; a mark follows each."""
_LEAD_MS = 240
_FRAME_MS = 20
_SPEAKING = (Floor.THINKING, Floor.AGENT, Floor.OVERLAP, Floor.CLOSING)


class TwilioTransport:
    """Of one stream. Never blocks."""

    def __init__(self, outbox: Outbox, encoder: MediaEncoder, audio: AudioFormat) -> None:
        self.audio = TransportAudio(
            rate_hz=audio.rate_hz,
            lead_ms=_LEAD_MS,
            chunk_ms=_CHUNK_MS,
            align_ms=_FRAME_MS,
            listen_hz=audio.rate_hz,
        )
        self.has_words = False
        """The latest reply says something, and does not only call functions."""
        self.floor = Floor.OPEN
        self._outbox = outbox
        self._encoder = encoder
        self._encode = g711.encode_alaw if audio.encoding == "alaw" else g711.encode_ulaw
        self._generation = 1
        self._sent = 0
        """Samples of the live reply that were sent."""
        self._pending = 0
        """Marks of this generation that have not come back."""
        self._quiet = asyncio.Event()
        self._quiet.set()

    # -- the call's transport ---------------------------------------------------------------------

    def notice(self, action: act.Action) -> None:
        match action:
            case act.Play():
                self._sent = action.from_ms * self.audio.rate_hz // 1000
            case act.FloorChanged():
                self._on_floor(action.floor)
            case act.ReplyBegan():
                self.has_words = False
            case act.ReplyWords():
                self.has_words = True
            case act.Fault():
                # Nobody else can be told: the protocol has no word for it.
                log.info("%s: %s", action.code, action.message)
            case _:
                pass

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        step = self.audio.rate_hz * _MARK_MS // 1000
        for at in range(0, len(pcm), step):
            piece = pcm[at : at + step]
            self._sent += len(piece)
            sent_ms = self._sent * 1000 // self.audio.rate_hz
            name = f"{self._generation}:{reply}:{sent_ms}"
            self._outbox.put(self._encoder.media(self._encode(piece)), reply)
            self._outbox.put(self._encoder.mark(name), reply)
            self._pending += 1

    def drop_audio(self, reply: str) -> None:
        self._outbox.purge(reply)
        self._clear()

    def hang_up(self, reason: str) -> None:
        self._quiet.set()
        self._outbox.close()

    # -- the peer's side ------------------------------------------------------------------------

    def echoed(self, name: str) -> ev.Played | None:
        """What the echo of a mark says of the reply. Raises nothing: strange marks are somebody else's."""
        generation, _, rest = name.partition(":")
        reply, _, played = rest.partition(":")
        if generation != str(self._generation) or not (played.isascii() and played.isdigit()):
            return None
        if len(played) > 9:  # eleven days
            return None
        self._pending = max(self._pending - 1, 0)
        return ev.Played(reply, int(played))

    # -- beside the agent's words ---------------------------------------------------------------

    async def quiet(self, limit_s: float) -> bool:
        """Wait until the agent does not speak -> whether it is so in time."""
        try:
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return self.floor is not Floor.ENDED

    def play_sound(self, pcm: Pcm16) -> None:
        """A sound that is no reply: tones of keys. Queued behind what was sent."""
        step = self.audio.rate_hz * _MARK_MS // 1000
        for at in range(0, len(pcm), step):
            self._outbox.put(self._encoder.media(self._encode(pcm[at : at + step])))

    def _on_floor(self, floor: Floor) -> None:
        if floor is Floor.CALLER and self._pending and self.floor is Floor.OPEN:
            # A reply was given up for played without the last word of the peer: its tail may be queued there.
            self._clear()
        self.floor = floor
        if floor in _SPEAKING:
            self._quiet.clear()
        else:
            self._quiet.set()

    def _clear(self) -> None:
        self._generation += 1
        self._pending = 0
        self._outbox.put(self._encoder.clear())

"""The session's side of a Realtime connection: actions and audio become events, events become frames in the outbox.

Not paced: clients of this protocol buffer, and so does the track of WebRTC. How far speech runs ahead of the ear is
bounded by the policy. Knows no socket.
"""

from __future__ import annotations

from typing import Any

from antiphon.core import actions as act
from antiphon.models.ports import Pcm16
from antiphon.server.outbox import Outbox
from antiphon.server.realtime.playout import Playout
from antiphon.session.door import DoorAudio
from antiphon.wire.realtime import audio as formats
from antiphon.wire.realtime.codec import Codec
from antiphon.wire.realtime.encoder import Encoder
from antiphon.wire.realtime.names import Names


class RealtimeDoor:
    """`encoder` must be set before the session begins."""

    encoder: Encoder

    def __init__(
        self, outbox: Outbox, codec: Codec, names: Names, playout: Playout | None = None
    ) -> None:
        """`playout`: where the voice goes, instead of into events."""
        self.audio = DoorAudio(rate_hz=formats.VOICE_RATE_HZ, paced=False)
        self.ended = ""
        """Why the call ended."""
        self.failed = False
        self._outbox = outbox
        self._codec = codec
        self._names = names
        self.playout = playout
        if playout is not None:
            playout.emit = self._on_playout

    def emit(self, kind: str, /, *, reply: str = "", **fields: Any) -> None:
        """One event to the client; encoded now, for what it shows may change."""
        event = {"event_id": self._names.event(), "type": kind, **fields}
        for frame in self._codec.encode(event):
            self._outbox.put(frame, reply)

    def notice(self, action: act.Action) -> None:
        if isinstance(action, act.Fault) and action.code == "internal_error":
            self.failed = True
        self.encoder.notice(action)
        if self.playout is None:
            return
        match action:
            case act.Play(reply, from_ms):
                self.playout.begin(reply, from_ms)
            case act.ReplyEnded(reply, status="cancelled"):
                self.playout.clear()
            case act.ReplyGenerated(reply) | act.ReplyEnded(reply):
                self.playout.finish(reply)

    def close(self) -> None:
        """The session is over: its parts forget each other, and are freed without a garbage collection."""
        self.encoder.close()
        del self.encoder
        if self.playout is not None:
            self.playout.close()

    def _on_playout(self, kind: str, response_id: str) -> None:
        self.emit(f"output_audio_buffer.{kind}", response_id=response_id)

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        self.encoder.audio(pcm)
        if self.playout is not None:
            self.playout.add(reply, self.encoder.audible, pcm)

    def drop_audio(self, reply: str) -> None:
        self._outbox.purge(self.encoder.audible)
        if self.playout is not None:
            self.playout.clear()

    def hang_up(self, reason: str) -> None:
        self.ended = (
            reason  # the connection closes the outbox, once all responses have had their end
        )

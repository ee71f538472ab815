"""The session's side of a connection in Unmute's dialect: actions and audio become its events. Knows no socket."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.server.outbox import Outbox
from antiphon.session.door import DoorAudio
from antiphon.session.session import Session as Call
from antiphon.wire.realtime.audio import VOICE_RATE_HZ, to_base64
from antiphon.wire.realtime.errors import PeerError
from antiphon.wire.realtime.names import Names
from antiphon.wire.realtime.transcripts import StableText
from antiphon.wire.realtime.unmute import Mouth

_LEAD_MS = 320
"""The page plays what comes and cannot be told to forget it, so little is sent ahead."""
_CHUNK_MS = 80
_TAIL = np.zeros(VOICE_RATE_HZ // 10, np.int16)
"""Pushes the last words out of the encoder."""
_FAREWELL = "bye!"
"""A reply that ends with this ends the call."""
_OF_THE_OWNER = ("audio_quality",)
_encoder = msgspec.json.Encoder()


class UnmuteDoor:
    """`call` must be set before the session begins."""

    call: Call

    def __init__(self, outbox: Outbox, names: Names) -> None:
        self.audio = DoorAudio(rate_hz=VOICE_RATE_HZ, lead_ms=_LEAD_MS, chunk_ms=_CHUNK_MS)
        self.failed = False
        self.voice = ""
        self._outbox = outbox
        self._names = names
        self._mouth = Mouth()
        self._captions: dict[str, StableText] = {}
        self._sent = 0
        """Samples of the live reply, from its beginning."""
        self._told = 0
        """Words of the live reply that were told as heard."""

    def emit(self, kind: str, /, **fields: Any) -> None:
        event = {"type": kind, "event_id": self._names.event(), **fields}
        self._outbox.put(_encoder.encode(event))

    def error(self, error: PeerError, kind: str = "warning") -> None:
        """`kind`: `warning` is logged by the page, `fatal` comes before the end."""
        body = {"type": kind, "code": error.code, "message": str(error), "param": error.param}
        self.emit("error", error={**body, "details": None})

    def close(self) -> None:
        self._mouth.close()

    # -- what the session says ----------------------------------------------------------------------

    def notice(self, action: act.Action) -> None:
        match action:
            case act.SpeechBegan():
                self.emit("input_audio_buffer.speech_started")
            case act.SpeechEnded():
                self.emit("input_audio_buffer.speech_stopped")
            case act.SpeechDropped(item):
                self._captions.pop(item, None)
                self.emit("input_audio_buffer.speech_stopped")
            case act.TranscriptFailed(item):
                self._captions.pop(item, None)
            case act.Transcript(item, text, final):
                self._caption(item, text, final)
            case act.ReplyBegan():
                self._sent = self._told = 0
                response = {"object": "realtime.response", "status": "in_progress"}
                shown = {**response, "voice": self.voice, "chat_history": self.chat_history()}
                self.emit("response.created", response=shown)
            case act.ReplyWords(_, _, text):
                self.emit("unmute.response.text.delta.ready", delta=text)
            case act.Play(_, from_ms):
                self._sent = from_ms * VOICE_RATE_HZ // 1000
            case act.ReplyEnded():
                self._reply_ended(action)
            case act.Fault(code, message):
                self.failed = self.failed or code == "internal_error"
                if code not in _OF_THE_OWNER:
                    self.error(PeerError(message, code))

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        self._sound(pcm)
        self._sent += len(pcm)
        live = self.call.view.reply
        if live is not None and live.id == reply:
            self._tell(live.playout.heard(self._sent * 1000 // VOICE_RATE_HZ)[0])

    def drop_audio(self, reply: str) -> None:
        """What was sent will be heard."""

    def hang_up(self, reason: str) -> None:
        """The connection closes the outbox."""

    # -- parts --------------------------------------------------------------------------------------

    def _sound(self, pcm: Pcm16) -> None:
        pages = self._mouth.feed(pcm)
        if pages:
            self.emit("response.audio.delta", delta=to_base64(pages))

    def _tell(self, heard: str) -> None:
        """One event per word, without the space before it."""
        words = heard.split()
        for word in words[self._told :]:
            self.emit("response.text.delta", delta=word)
        self._told = max(self._told, len(words))

    def _caption(self, item: str, text: str, final: bool) -> None:
        stable = self._captions.setdefault(item, StableText())
        words = stable.final(text) if final else stable.partial(text)
        at_s = round(self.call.heard_ms / 1000, 3)
        for word in words.split():
            kind = "conversation.item.input_audio_transcription.delta"
            self.emit(kind, delta=word, start_time=at_s)
        if final:
            del self._captions[item]

    def _reply_ended(self, ended: act.ReplyEnded) -> None:
        """The history comes before the end: clients look at it when that arrives."""
        if ended.status == "cancelled":
            self.emit("unmute.interrupted_by_vad")
        else:
            self._sound(_TAIL)
            self._tell(ended.heard)
        self.emit("response.text.done", text=ended.heard)
        args = {"chat_history": self.chat_history(), "debug_dict": {"status": ended.status}}
        self.emit("unmute.additional_outputs", args=args)
        self.emit("response.audio.done")
        if ended.status == "completed" and ended.heard.rstrip().lower().endswith(_FAREWELL):
            self.call.post(ev.Finish("the agent said goodbye"))

    def chat_history(self) -> list[dict[str, str]]:
        history = self.call.view.history.snapshot()
        told = [(i.role, i.text) for i in history if i.role in ("user", "assistant")]
        prompt = self.call.agent.prompt
        return [{"role": role, "content": text} for role, text in (("system", prompt), *told)]

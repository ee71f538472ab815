"""The input audio buffer: the client's audio, and the turns that are made of it, as the client is told of them.

Positions in events count the audio that was received, not the time that passed; the call also hears silence of its own
making where a client stops sending, so the two clocks are kept apart here. A turn is shown as an item when its audio is
complete; its words follow. The core tells both at once, and a turn that was committed by hand only when its words are
known, so what has been shown is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.core import actions as act
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import items as shown
from antiphon.protocols.realtime.effects import CallView
from antiphon.protocols.realtime.frames import Emit, show_item
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.items import Items
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import SessionConfig
from antiphon.protocols.realtime.unmute import RATE_HZ, Ears, starts_ogg

Speech = act.SpeechBegan | act.SpeechEnded | act.SpeechDropped | act.SilencePassed
_NOW_MS = 1 << 62
"""Beyond all audio: where the client's audio ends."""
_PIECE_BYTES = 96_000
"""Audio that is decoded without a pause: two seconds at most of it, as everybody else waits meanwhile."""


class StableText:
    """The partial transcripts of one item as the protocol wants them: text that is only ever added to.

    Our speech to text transcribes an utterance again and again and may change its mind about the last words; a delta
    cannot be taken back. So a word is sent once two partial transcripts in a row agree on it and on all before it
    (LocalAgreement of Macháček et al. 2023, with n = 2).
    """

    def __init__(self) -> None:
        self._before: list[str] = []
        self._sent: list[str] = []

    def partial(self, text: str) -> str:
        """-> what may be added now, with its leading space; empty: nothing."""
        words = text.split()
        agreed = 0
        # The last word may still be growing, whatever two transcripts say of it.
        for old, new in zip(self._before, words[:-1], strict=False):
            if old != new:
                break
            agreed += 1
        self._before = words
        if words[: len(self._sent)] != self._sent:
            return ""
        return self._add(words[:agreed])

    def final(self, text: str) -> str:
        """-> the rest, or nothing when an earlier delta turned out wrong: `completed` has the last word."""
        words = text.split()
        if words[: len(self._sent)] != self._sent:
            return ""
        return self._add(words)

    def _add(self, words: list[str]) -> str:
        new = words[len(self._sent) :]
        if not new:
            return ""
        space = " " if self._sent else ""
        self._sent = words
        return space + " ".join(new)


@dataclass(slots=True)
class _Heard:
    """One turn of the caller."""

    start_ms: int
    shown: bool = False
    """Its item has been announced."""
    stable: StableText = field(default_factory=StableText)


class InputAudioBuffer:
    """The buffer of one session."""

    def __init__(
        self, session: SessionConfig, ids: Ids, items: Items, emit: Emit, *, kept_ms: int
    ) -> None:
        """`kept_ms`: how much uncommitted audio is kept."""
        self.received_ms = 0.0
        self._samples = formats.InputAudio()
        self._ears: Ears | None = None
        """For a client that sends Ogg Opus."""
        self._kept_ms = kept_ms
        self._offset_ms = 0
        """What the call has heard beyond what was received."""
        self._told_full = False
        self.taken_ms = 0.0
        """The client's audio up to here has become items, or was cleared."""
        self._session = session
        self._ids = ids
        self._items = items
        self._emit = emit
        self._turns: dict[str, _Heard] = {}
        self._turn = ""
        """The turn that is being heard."""
        self._committing: int | None = None
        """The client commits, up to this position: a turn that begins now is a command's, not a voice's."""
        self._clearing = False

    # -- the audio itself -------------------------------------------------------------------------

    def use_format(self, kind: str) -> None:
        self._samples.kind = kind

    def decode(self, data: bytes) -> Iterator[tuple[Pcm16, int]]:
        """Audio as the client encodes it -> samples and their rate, a second at a time.

        Ogg Opus is understood whatever the session says, for no samples begin like that. Raises RealtimeError.
        """
        if not self.received_ms and starts_ogg(data):
            self._ears = Ears()
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            if self._ears is None:
                pcm, rate_hz = self._samples.feed(piece), self._samples.rate_hz
            else:
                heard = self._ears.feed(piece)
                pcm, rate_hz = np.empty(0, np.int16) if heard is None else heard, RATE_HZ
            for at in range(0, len(pcm), rate_hz):
                yield pcm[at : at + rate_hz], rate_hz

    def received(self, pcm: Pcm16, rate_hz: int, view: CallView) -> None:
        """The call is about to hear this."""
        self._offset_ms = max(view.heard_ms - int(self.received_ms), 0)
        self.received_ms += len(pcm) * 1000 / rate_hz

    @property
    def waiting_ms(self) -> float:
        """Audio that is not committed."""
        return self.received_ms - self.taken_ms

    def check_room(self, view: CallView) -> None:
        """Raises RealtimeError, once, when uncommitted audio is dropped."""
        if view.auto_turns or self.waiting_ms <= self._kept_ms or self._told_full:
            return
        self._told_full = True
        raise RealtimeError(
            f"the input audio buffer holds {self._kept_ms // 1000} s; older audio was dropped: commit or clear it",
            "input_audio_buffer_full",
            "audio",
        )

    def taken(self) -> None:
        """All of it has become an item."""
        self.taken_ms = self.received_ms
        self._told_full = False

    def cleared(self) -> None:
        self._samples.reset()
        self.taken()

    def wire_ms(self, heard_ms: int) -> int:
        """A position on the call's audio clock -> in what was received."""
        return max(min(heard_ms - self._offset_ms, int(self.received_ms)), 0)

    # -- what the client does with it ---------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """A turn is open that speech detection began."""
        return bool(self._turn) and not self._turns[self._turn].shown

    def begin_commit(self, end_ms: int, view: CallView) -> None:
        """The client commits: its turn is over, whenever its words will be known."""
        if self._turn and not self._turns[self._turn].shown:
            self._show_turn(self._turn, end_ms, view)
        else:
            self._committing = end_ms

    def end_commit(self) -> None:
        self._committing = None

    def begin_clear(self) -> None:
        self._clearing = True

    def end_clear(self) -> None:
        self._clearing = False
        self._emit("input_audio_buffer.cleared")

    # -- what the core says -----------------------------------------------------------------------

    def speech(self, action: Speech, view: CallView) -> None:
        item = action.item
        match action:
            case act.SpeechBegan(_, at_ms):
                self._turns[item] = _Heard(at_ms)
                if self._committing is not None:
                    self._show_turn(item, self._committing, view)
                    return
                self._turn = item
                name, start_ms = self._ids.item(item), self.wire_ms(at_ms)
                self._emit(
                    "input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=name
                )
            case act.SpeechEnded(_, at_ms):
                if not self._turns[item].shown:
                    self._speech_stopped(item, at_ms)
                    self._show_turn(item, at_ms, view)
                self._turn = "" if self._turn == item else self._turn
            case act.SpeechDropped():
                self._speech_dropped(item)
            case act.SilencePassed(_, start_ms, end_ms):
                self._turns[item] = _Heard(start_ms)
                self._emit(
                    "input_audio_buffer.timeout_triggered",
                    audio_start_ms=self.wire_ms(start_ms),
                    audio_end_ms=self.wire_ms(end_ms),
                    item_id=self._ids.item(item),
                )
                self._show_turn(item, end_ms, view)

    def _speech_stopped(self, item: str, at_ms: int) -> None:
        end_ms = self.wire_ms(at_ms)
        name = self._ids.item(item)
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=name)

    def _show_turn(self, item: str, end_ms: int, view: CallView) -> None:
        """The client's audio has become an item."""
        heard, name = self._turns[item], self._ids.item(item)
        heard.shown = True
        before, message = self._items.last, shown.spoken_by_user(name)
        self._emit("input_audio_buffer.committed", previous_item_id=before, item_id=name)
        show_item(self._items, self._emit, message)
        self.taken_ms = self.wire_ms(end_ms)
        pcm = view.heard_audio(heard.start_ms, min(end_ms, view.heard_ms))
        self._items.keep_audio(name, formats.HEARD, pcm.astype("<i2", copy=False).tobytes())

    def _speech_dropped(self, item: str) -> None:
        """Noise, or a commit without words: the one was never an item, the other stays an empty one."""
        heard = self._turns.pop(item)
        if heard.shown:
            self._transcribed(item, "")
        elif not self._clearing:
            self._speech_stopped(item, _NOW_MS)
        self._turn = "" if self._turn == item else self._turn

    def caption(self, caption: act.Transcript) -> None:
        heard = self._turns.get(caption.item)
        if heard is None:
            return
        name = self._ids.item(caption.item)
        stable = heard.stable
        delta = stable.final(caption.text) if caption.final else stable.partial(caption.text)
        if delta and self._session.transcribes:
            kind = "conversation.item.input_audio_transcription.delta"
            self._emit(kind, item_id=name, content_index=0, delta=delta)
        if caption.final:
            del self._turns[caption.item]
            self._transcribed(caption.item, caption.text)

    def _transcribed(self, item: str, text: str) -> None:
        name = self._ids.item(item)
        if name not in self._items:
            return
        self._items.transcribe(name, text)
        if self._session.transcribes:
            self.transcription_done(name, text, self._items.audio_s(name))

    def transcription_done(self, item_id: str, text: str, duration_s: float) -> None:
        self._emit(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript=text,
            usage={"type": "duration", "seconds": round(duration_s, 3)},
        )

    def transcription_failed(self, item_id: str, reason: str) -> None:
        if not self._session.transcribes:
            return
        error = {"type": "server_error", "code": "transcription_failed", "message": reason}
        self._emit(
            "conversation.item.input_audio_transcription.failed",
            item_id=item_id,
            content_index=0,
            error={**error, "param": None},
        )

    def caption_failed(self, item: str, reason: str, view: CallView) -> None:
        heard = self._turns[item]
        if not heard.shown:
            self._speech_stopped(item, _NOW_MS)
            self._show_turn(item, _NOW_MS, view)
        del self._turns[item]
        self._turn = "" if self._turn == item else self._turn
        self.transcription_failed(self._ids.item(item), reason)

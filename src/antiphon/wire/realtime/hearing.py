"""The caller's turns as server events: speech, commits, transcripts.

A turn is shown as an item when its audio is complete; its words follow. The core tells both at once, and a turn that
was committed by hand only when its words are known, so this part keeps what has been shown. Knows nothing of replies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from antiphon.core import actions as act
from antiphon.wire.realtime import audio as formats
from antiphon.wire.realtime import items as shown
from antiphon.wire.realtime.emitting import Emit, show_item
from antiphon.wire.realtime.items import Items
from antiphon.wire.realtime.names import Names
from antiphon.wire.realtime.session import Session
from antiphon.wire.realtime.transcripts import StableText

Speech = act.SpeechBegan | act.SpeechEnded | act.SpeechDropped | act.SilencePassed
_NOW_MS = 1 << 62
"""Beyond all audio: where the client's audio ends."""


@dataclass(slots=True)
class _Heard:
    """One turn of the caller."""

    start_ms: int
    shown: bool = False
    """Its item has been announced."""
    stable: StableText = field(default_factory=StableText)


class Hearing:
    """Of one session."""

    def __init__(self, session: Session, names: Names, items: Items, emit: Emit) -> None:
        self.clip: Callable[[int, int], bytes] = lambda start_ms, end_ms: b""
        """Gives the caller's audio between two positions of the core's clock, as `formats.HEARD`."""
        self.wire_ms: Callable[[int], int] = lambda heard_ms: heard_ms
        """A position on the core's clock -> in the audio that the client sent."""
        self.taken_ms = 0.0
        """The client's audio up to here has become items, or was cleared."""
        self._session = session
        self._names = names
        self._items = items
        self._emit = emit
        self._turns: dict[str, _Heard] = {}
        self._turn = ""
        """The turn that is being heard."""
        self._committing: int | None = None
        """The client commits, up to this position: a turn that begins now is a command's, not a voice's."""
        self._clearing = False

    # -- what the client does ---------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """A turn is open that speech detection began."""
        return bool(self._turn) and not self._turns[self._turn].shown

    def begin_commit(self, end_ms: int) -> None:
        """The client commits: its turn is over, whenever its words will be known."""
        if self._turn and not self._turns[self._turn].shown:
            self._show_turn(self._turn, end_ms)
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

    def speech(self, action: Speech) -> None:
        item = action.item
        match action:
            case act.SpeechBegan(_, at_ms):
                self._turns[item] = _Heard(at_ms)
                if self._committing is not None:
                    self._show_turn(item, self._committing)
                    return
                self._turn = item
                name, start_ms = self._names.item(item), self.wire_ms(at_ms)
                self._emit(
                    "input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=name
                )
            case act.SpeechEnded(_, at_ms):
                if not self._turns[item].shown:
                    self._speech_stopped(item, at_ms)
                    self._show_turn(item, at_ms)
                self._turn = "" if self._turn == item else self._turn
            case act.SpeechDropped():
                self._speech_dropped(item)
            case act.SilencePassed(_, start_ms, end_ms):
                self._turns[item] = _Heard(start_ms)
                self._emit(
                    "input_audio_buffer.timeout_triggered",
                    audio_start_ms=self.wire_ms(start_ms),
                    audio_end_ms=self.wire_ms(end_ms),
                    item_id=self._names.item(item),
                )
                self._show_turn(item, end_ms)

    def _speech_stopped(self, item: str, at_ms: int) -> None:
        end_ms = self.wire_ms(at_ms)
        name = self._names.item(item)
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=name)

    def _show_turn(self, item: str, end_ms: int) -> None:
        """The client's audio has become an item."""
        heard, name = self._turns[item], self._names.item(item)
        heard.shown = True
        before, message = self._items.last, shown.spoken_by_user(name)
        self._emit("input_audio_buffer.committed", previous_item_id=before, item_id=name)
        show_item(self._items, self._emit, message)
        self.taken_ms = self.wire_ms(end_ms)
        self._items.keep_audio(name, formats.HEARD, self.clip(heard.start_ms, end_ms))

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
        name = self._names.item(caption.item)
        stable = heard.stable
        delta = stable.final(caption.text) if caption.final else stable.partial(caption.text)
        if delta and self._session.transcribes:
            kind = "conversation.item.input_audio_transcription.delta"
            self._emit(kind, item_id=name, content_index=0, delta=delta)
        if caption.final:
            del self._turns[caption.item]
            self._transcribed(caption.item, caption.text)

    def _transcribed(self, item: str, text: str) -> None:
        name = self._names.item(item)
        if name not in self._items:
            return
        self._items[name]["content"][0]["transcript"] = text
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

    def caption_failed(self, item: str, reason: str) -> None:
        heard = self._turns[item]
        if not heard.shown:
            self._speech_stopped(item, _NOW_MS)
            self._show_turn(item, _NOW_MS)
        del self._turns[item]
        self._turn = "" if self._turn == item else self._turn
        self.transcription_failed(self._names.item(item), reason)

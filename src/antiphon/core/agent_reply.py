"""One reply of the agent, from its first token to the last word that is heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from antiphon.core.actions import ReplyCallWords
from antiphon.core.events import ReplyComplete
from antiphon.core.history import ToolRequest
from antiphon.core.playout import PlayoutLedger, PlayoutView
from antiphon.core.policy import Policy
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.core.turn_record import TurnRecord


class ReplyView(Protocol):
    """What others may read of the live reply."""

    @property
    def id(self) -> str: ...
    @property
    def item(self) -> str: ...
    @property
    def committed(self) -> bool: ...
    @property
    def audible(self) -> bool: ...
    @property
    def playout(self) -> PlayoutView: ...


@dataclass(frozen=True, slots=True)
class PendingReply:
    """A reply that is to be given as soon as the floor is open, unless a turn of the user takes it over."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    speaks: bool | None = None
    """None: as the policy says."""
    continues: TurnRecord | None = None
    """Of the reply that called the functions whose results are answered."""

    def new_record(self) -> TurnRecord:
        """A record that goes on with the turn in which functions were called, or one of no turn."""
        asked = self.continues
        if asked is None:
            return TurnRecord(number=0)
        record = TurnRecord(number=asked.number, user_text=asked.user_text)
        if asked.first_sent_ms is None:  # the user still waits for the first sound
            record.speech_start_ms = asked.speech_start_ms
            record.speech_end_ms = asked.speech_end_ms
        return record


@dataclass(slots=True, eq=False)
class AgentReply:
    """A reply is preemptive until it is committed: generated and half synthesized, with nothing shown or played."""

    id: str
    item: str
    """Id of the history item that it will become."""
    kind: str
    record: TurnRecord
    segmenter: TextSegmenter
    playout: PlayoutLedger
    speaks: bool
    prompt: str = ""
    """The user's words it answers."""
    text_end_probability: float | None = None
    """How likely those words end there, by the language model."""
    options: Mapping[str, Any] = field(default_factory=dict)
    committed: bool = False
    text: str = ""
    text_done: bool = False
    finish: str = ""
    failed: str = ""
    """Why a model gave up."""
    tools: list[ToolRequest] = field(default_factory=list)
    """Function calls that may not run yet."""
    call_items: dict[str, str] = field(default_factory=dict)
    """Call id -> history item, of calls whose arguments are being written."""
    call_words: list[ReplyCallWords] = field(default_factory=list)
    """Arguments that may not be shown yet."""
    calls: int = 0
    """Function calls asked for so far."""
    waiting: deque[str] = field(default_factory=deque)
    """Segments that have not been given to text to speech."""
    synthesizing: int | None = None
    """The segment that text to speech is at."""
    unwanted: list[str] = field(default_factory=list)
    """Segments that are not said, for the reply has become too long."""
    audible: bool = False
    announced: bool = False
    """`ReplyGenerated` has been sent."""
    progress_ms: int = 0
    """Clock time at which a model last gave something for it."""
    first_call_item: str = ""
    """The history item of its first function call; what it says stands before that."""

    # -- what becomes of it --------------------------------------------------------------------------

    def commit(self, now_ms: int) -> None:
        """It is certain: it may be shown and heard."""
        record, self.committed = self.record, True
        record.committed_ms = now_ms

    def sent(self, sent_ms: int, now_ms: int) -> None:
        """Its audio up to `sent_ms` has left. Not after a pause: then it left before."""
        record = self.record
        if self.audible and not self.playout.paused:
            self.playout.sent(sent_ms, now_ms)
            if record.first_sent_ms is None:
                record.first_sent_ms = now_ms

    def played(self, played_ms: int, now_ms: int) -> bool:
        """The client's report of what it has played -> False when that was a lie."""
        record, honest = self.record, self.playout.report(played_ms, now_ms)
        if played_ms > 0 and record.first_played_ms is None:
            record.first_played_ms = now_ms - min(played_ms, self.playout.sent_ms)
        return honest

    # -- what the models give -----------------------------------------------------------------------

    def add_text(self, text: str, now_ms: int) -> None:
        record = self.record
        if record.first_token_ms is None:
            record.first_token_ms = now_ms
        record.characters += len(text)
        self.progress_ms = now_ms
        self.text += text
        if self.speaks:
            self.waiting.extend(self.segmenter.feed(text))

    def end_text(self, now_ms: int, done: ReplyComplete | None = None) -> None:
        """No more text will come."""
        record = self.record
        self.text_done = True
        record.text_done_ms = self.progress_ms = now_ms
        if done is not None:
            self.finish = done.finish
            record.input_tokens, record.output_tokens = done.input_tokens, done.output_tokens
            record.cached_tokens = done.cached_tokens
        if self.speaks:
            self.waiting.extend(self.segmenter.flush())

    def add_audio(self, duration_ms: int, now_ms: int) -> None:
        """More of the segment that is being synthesized."""
        if self.synthesizing is None or duration_ms <= 0:
            return
        record = self.record
        if record.first_audio_ms is None:
            record.first_audio_ms = now_ms
        self.progress_ms = now_ms
        self.playout.add_audio(self.synthesizing, duration_ms)
        record.audio_ms = self.playout.total_ms

    def end_segment(self, now_ms: int) -> None:
        """All audio of the segment that is being synthesized is there."""
        record = self.record
        if self.synthesizing is not None:
            self.playout.finish_segment(self.synthesizing)
            self.synthesizing = None
            record.audio_done_ms = self.progress_ms = now_ms

    def fail(self, reason: str, now_ms: int) -> None:
        """A model gave up: what has been made is still said, nothing more is made."""
        record, self.failed, self.text_done = self.record, reason, True
        if self.synthesizing is not None:
            self.playout.finish_segment(self.synthesizing)
            self.synthesizing = None
        if record.text_done_ms is None:
            record.text_done_ms = now_ms

    def end_at_limit(self) -> None:
        """It has become too long: what has been made is still said, nothing more is made."""
        self.unwanted, self.waiting = [*self.waiting], deque()
        self.text_done, self.finish = True, "length"

    # -- what it needs ------------------------------------------------------------------------------

    def too_long(self, policy: Policy) -> bool:
        """There is as much speech as a reply may have, and more is waiting."""
        if not self.waiting or self.synthesizing is not None or self.failed:
            return False
        return 0 < policy.max_reply_ms <= self.playout.total_ms

    def segment_due(self, policy: Policy, now_ms: int) -> bool:
        """The next segment is wanted: one is synthesized at a time, not too far ahead of the ear."""
        if not self.waiting or self.synthesizing is not None or self.failed:
            return False
        if not self.committed and self.playout.segments:
            return False  # one segment is all that a preemptive reply is worth
        return self.playout.total_ms - self.playout.position(now_ms) <= policy.speak_ahead_ms

    def next_segment(self, now_ms: int) -> tuple[int, str]:
        """-> the number and text of the segment that is synthesized from now on."""
        text = self.waiting.popleft()
        self.synthesizing = self.playout.add_segment(text)
        record = self.record
        if record.speak_ms is None:
            record.speak_ms = now_ms
        return self.synthesizing, text

    # -- how far it is ------------------------------------------------------------------------------

    @property
    def generated(self) -> bool:
        """Nothing more will come: neither text nor audio."""
        if not self.text_done or self.synthesizing is not None:
            return False
        return bool(self.failed) or not self.waiting

    @property
    def silent(self) -> bool:
        """Text to speech was given something to say and has made no sound of it."""
        return bool(self.playout.segments) and not self.playout.total_ms

    def finished(self, now_ms: int) -> bool:
        """All of it has been heard."""
        return self.generated and self.playout.position(now_ms) >= self.playout.total_ms

    def unsaid(self) -> str:
        """Words that were never given to text to speech. Only for a reply that is over: it empties the segmenter."""
        return " ".join([*self.unwanted, *self.waiting, *self.segmenter.flush()])

    def split(self, position_ms: int, *, whole: bool) -> tuple[str, str]:
        """-> its text that was heard and its text that was not. `whole`: it was played to its end."""
        if not self.speaks or (whole and not self.failed):
            return self.text.strip(), ""
        heard, unheard = self.playout.heard(position_ms)
        return heard, f"{unheard} {self.unsaid()}".strip()

    # -- when something is due for it ---------------------------------------------------------------

    def played_ms(self, policy: Policy) -> int | None:
        """Clock time at which all of it will have been played, or the client's word on that is overdue."""
        ends_at_ms = self.playout.ends_at()
        if ends_at_ms is None or not self.generated:
            return None
        if self.playout.sent_ms < self.playout.total_ms:
            return None
        return ends_at_ms + (policy.playout_grace_ms if policy.client_reports_played else 0)

    def segment_wanted_ms(self, policy: Policy) -> int | None:
        """Clock time at which the next segment is to be given to text to speech."""
        if not self.waiting or self.synthesizing is not None or self.failed:
            return None
        return self.playout.reaches_at(self.playout.total_ms - policy.speak_ahead_ms)

    def quiet_since_ms(self) -> int:
        """Clock time since which it makes no progress, neither in the making nor on the line."""
        return max(self.progress_ms, self.playout.ends_at() or 0)

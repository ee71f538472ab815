"""One turn of the user, from the onset of speech to its end: what was heard, transcribed and scored of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.core.partial_transcript import PartialTranscript
from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.core.vad import SpeechDetector

TRANSCRIBE_AHEAD_EVERY_MS = 200
"""Between two transcripts that are made ahead: stops within words look like silence for a window."""


@dataclass(slots=True, eq=False)
class UserTurn:
    """The turn that holds the floor is the current one.

    Others are overheard (spoken beside a reply that is not to be interrupted, and not over yet) or detached (over, with
    only their transcript awaited, while something else holds the floor).
    """

    number: int
    item: str
    """Id of the history item that it will become."""
    start_ms: int
    """Where its audio begins, padding included."""
    onset_ms: int
    from_ms: int
    """Audio before this is transcribed for good (`kept`)."""
    record: TurnRecord
    holds_floor: bool = True
    interrupts: bool = False
    """It stopped the agent."""
    forced: bool = False
    """Over by a client's commit or by its length; only its transcript is awaited."""
    reply_wanted: bool | None = None
    """None: as the policy says."""
    end_ms: int = 0
    """Audio position up to which a transcript was last asked for."""
    text: str | None = None
    """Transcript of the whole turn so far; None while unknown."""
    failure: str = ""
    """Why there is no transcript."""
    kept: str = ""
    """Transcript of a long beginning, which is not transcribed again."""
    partial: str = ""
    partials: PartialTranscript = field(default_factory=PartialTranscript)
    partial_ms: int = 0
    """Audio position of the latest partial transcript."""
    latest_partial: str = ""
    """As the model gave it."""
    ahead_ms: int = 0
    """Audio position of the latest transcript that was asked for before its pause was certain."""
    transcript_job: int = 0
    """The latest job for a transcript of more than a part; 0 when its result was used."""
    transcribe_ms: int = 0
    """Clock time at which the latest transcript was asked for."""
    asked_ms: int = 0
    """Clock time since which a decision waits for a transcript."""
    probability: float | None = None
    """The turn detector's end-of-turn probability; None while unknown."""
    scored_ms: int = 0
    """Audio position of the latest question to the turn detector."""
    score_asked_ms: int = 0
    """Clock time of that question."""

    def commit(self, reply: bool | None) -> None:
        """The client says that it is over. `reply`: whether to answer it; None: as the policy says."""
        self.forced = True
        if reply is not None:
            self.reply_wanted = reply

    def take_transcript(self, text: str, now_ms: int) -> None:
        """The transcript of the whole turn so far, as it was last asked for."""
        record, self.text = self.record, text
        record.transcribe_ms, record.transcript_ms = self.transcribe_ms, now_ms

    def take_score(self, probability: float, now_ms: int) -> None:
        """The turn detector's answer."""
        record, self.probability = self.record, probability
        record.turn_probability, record.turn_scored_ms = probability, now_ms
        record.score_asked_ms = self.score_asked_ms

    def wants_reply(self, policy: Policy) -> bool:
        return policy.auto_reply if self.reply_wanted is None else self.reply_wanted

    def speech_ms(self, vad: SpeechDetector) -> int:
        """From onset to the last speech."""
        return vad.voiced_until_ms - self.onset_ms

    def too_long(self, policy: Policy, vad: SpeechDetector) -> bool:
        return vad.heard_ms - self.start_ms >= policy.max_turn_ms

    def transcribed_ahead(self, vad: SpeechDetector) -> bool:
        """A transcript of everything up to this silence has been asked for."""
        return self.ahead_ms > vad.voiced_until_ms

    def ahead_due(self, vad: SpeechDetector) -> bool:
        """The first silent window: should it become a pause, a transcript is under way already."""
        if not vad.silence_ms or self.transcribed_ahead(vad):
            return False
        return vad.heard_ms - self.ahead_ms >= TRANSCRIBE_AHEAD_EVERY_MS

    def score_due(self, policy: Policy, vad: SpeechDetector) -> bool:
        """The pause has lasted long enough for a first question, or for one more since the last answer."""
        if self.forced or not policy.use_turn_detector:
            return False
        if self.scored_ms <= vad.voiced_until_ms:  # not asked since the user fell silent
            return vad.paused
        return (
            policy.rescore_every_ms > 0
            and self.probability is not None
            and vad.heard_ms - self.scored_ms >= policy.rescore_every_ms
            and vad.silence_ms <= policy.unsure_silence_ms
        )

    def partial_due(self, vad: SpeechDetector, every_ms: int, longest_ms: int) -> bool:
        since_ms, length_ms = vad.heard_ms - self.partial_ms, vad.heard_ms - self.from_ms
        return since_ms >= every_ms and length_ms <= longest_ms

    def show_partial(self, text: str) -> bool:
        """Smooth `text` into `partial` -> whether that is something new to show."""
        text = self.partials.feed(text)
        changed, self.partial = text != self.partial, text
        return bool(text) and changed

    def keep_beginning(self, policy: Policy) -> None:
        """Before speech goes on: a long beginning that is transcribed already is kept as it is."""
        if self.text and self.end_ms - self.from_ms >= policy.keep_transcript_after_ms:
            self.kept, self.from_ms = self.text, self.end_ms

    def go_on(self) -> None:
        """Speech went on after a pause: nothing that is known of the turn is known of the whole."""
        self.probability = self.text = None
        self.ahead_ms = 0

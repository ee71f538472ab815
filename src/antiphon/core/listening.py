"""The caller's side of a conversation: the turn being heard, its transcript attempts, and what still has to be asked.

Knows the audio clock and the policy, not the floor and not the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from antiphon.core.actions import Action, ScoreTurn, Transcribe
from antiphon.core.partial_transcript import PartialTranscript
from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.core.vad import SpeechDetector, VadChange

PAUSE_MS = 64
"""Two windows of silence are credible; PERFORMANCE.md shows transcripts suffer from less."""

AHEAD_REST_MS = 200
"""Between two transcripts that are made ahead: stops within words look like silence for a window."""

TURN_PROMPT_MS = 8_000
"""Turn detectors hear at most this much."""


@dataclass(slots=True)
class Turn:
    """One turn of the caller, from onset to commit."""

    number: int
    item: str
    start_ms: int
    """Where its audio begins, padding included."""
    onset_ms: int
    from_ms: int
    """Audio before this is transcribed for good (`kept`)."""
    record: TurnRecord
    contested: bool = False
    """It began while the agent was speaking, and is not believed yet."""
    interrupts: bool = False
    """It stopped the agent."""
    forced: bool = False
    """Over by command or by length; only its transcript is awaited."""
    reply_wanted: bool | None = None
    """None: as the policy says."""
    attempt: int = 0
    end_ms: int = 0
    text: str | None = None
    """Transcript of the whole turn up to the current attempt; None while unknown."""
    kept: str = ""
    partial: str = ""
    agreement: PartialTranscript = field(default_factory=PartialTranscript)
    partial_busy: bool = False
    partial_from_ms: int = 0
    """Audio position of the latest partial."""
    probability: float | None = None
    scored_ms: int = 0
    score_asked_ms: int = 0
    """Clock time of the latest question to the turn detector."""
    ahead_ms: int = 0
    """Audio position of the latest attempt that was made before its pause was certain."""
    asked_ms: int = 0
    """Clock time of the latest final attempt."""
    marks: dict[int, int] = field(default_factory=dict)
    """Clock time at which each attempt was asked for."""


class Listener:
    """Owns the gate and the current turn. `emit` takes the actions it asks for."""

    def __init__(self, emit: Callable[[Action], None]) -> None:
        self.gate = SpeechDetector()
        self.turn: Turn | None = None
        self.detached: dict[int, Turn] = {}
        """Turns committed by the client while something else had the floor; only their transcripts are awaited."""
        self.taken_ms = 0
        """Audio up to here belongs to earlier turns."""
        self._emit = emit
        self._count = 0

    def score(
        self, policy: Policy, probability: float, end_ms: int, *, agent_audible: bool
    ) -> VadChange | None:
        start = policy.barge_in_threshold if agent_audible else policy.speech_threshold
        least_ms = policy.barge_in_min_speech_ms if agent_audible else policy.min_speech_ms
        return self.gate.feed(
            probability,
            end_ms,
            start=start,
            stop=min(policy.silence_threshold, start),
            min_speech_ms=least_ms,
            pause_ms=policy.preemptive_generation_after_ms or PAUSE_MS,
        )

    def open_turn(self, item: str, policy: Policy, now_ms: int, *, contested: bool = False) -> Turn:
        """A turn that begins at the gate's onset."""
        onset_ms = self.gate.onset_ms
        start_ms = max(onset_ms - policy.prefix_padding_ms, self.taken_ms, 0)
        turn = self._new_turn(item, start_ms, onset_ms, contested)
        turn.record.speech_start_ms = now_ms - (self.gate.heard_ms - onset_ms)
        return turn

    def open_turn_by_hand(self, item: str, policy: Policy, end_ms: int) -> Turn:
        """A turn of everything that no earlier turn has taken and that is still kept."""
        start_ms = min(max(self.needed_from_ms(policy), self.taken_ms), end_ms)
        return self._new_turn(item, start_ms, start_ms, False)

    def detach(self, item: str, policy: Policy, end_ms: int) -> Turn:
        """Like `open_turn_by_hand`, but beside the current turn, if there is one."""
        current = self.turn
        if current is not None:  # whose audio ends where this begins
            self.taken_ms = max(self.taken_ms, current.end_ms)
            turn = self._new_turn(item, self.taken_ms, self.taken_ms, False)
        else:
            turn = self.open_turn_by_hand(item, policy, end_ms)
        turn.forced = True
        self.detached[turn.number] = turn
        self.turn = current
        self.taken_ms = max(self.taken_ms, end_ms)
        if current is None:
            self.gate.split(end_ms)
        return turn

    def _new_turn(self, item: str, start_ms: int, onset_ms: int, contested: bool) -> Turn:
        self._count += 1
        self.turn = Turn(
            number=self._count,
            item=item,
            start_ms=start_ms,
            onset_ms=onset_ms,
            from_ms=start_ms,
            record=TurnRecord(number=self._count),
            contested=contested,
            partial_from_ms=onset_ms,
        )
        return self.turn

    def reopen(self, turn: Turn, policy: Policy) -> None:
        """The caller went on: an ended turn is the current one again."""
        self.turn = turn
        turn.partial_busy = False
        self.keep_beginning(policy)
        self.continue_turn()

    def ask(
        self, policy: Policy, now_ms: int, end_ms: int | None = None, turn: Turn | None = None
    ) -> None:
        """A final attempt at a turn (the current one) as it stands: transcript, and does it sound finished."""
        turn = turn or self.turn
        assert turn is not None
        turn.asked_ms = now_ms
        ahead = turn.ahead_ms > self.gate.voiced_until_ms and end_ms is None and not turn.forced
        if not ahead:
            self._ask_transcript(turn, self.gate.heard_ms if end_ms is None else end_ms, now_ms)

    def ask_ahead(self, policy: Policy, now_ms: int) -> None:
        """The first silent window: should it become a pause, its transcript is under way already."""
        turn, gate = self.turn, self.gate
        if turn is None or not gate.silence_ms or turn.ahead_ms > gate.voiced_until_ms:
            return
        if gate.heard_ms - turn.ahead_ms >= AHEAD_REST_MS:
            turn.ahead_ms = turn.partial_from_ms = gate.heard_ms
            self._ask_transcript(turn, gate.heard_ms, now_ms)
            if (
                policy.use_turn_detector
            ):  # beside the transcript, so that the language model has the cores later
                self.ask_score(now_ms)

    def _ask_transcript(self, turn: Turn, end_ms: int, now_ms: int) -> None:
        turn.attempt += 1
        turn.end_ms = max(end_ms, turn.from_ms)
        turn.text = turn.probability = None
        turn.marks[turn.attempt] = now_ms
        self._emit(Transcribe(turn.number, turn.attempt, turn.from_ms, turn.end_ms))

    def ask_score(self, now_ms: int) -> None:
        turn = self.turn
        assert turn is not None
        turn.score_asked_ms = now_ms
        turn.scored_ms = self.gate.heard_ms
        start_ms = max(turn.start_ms, turn.scored_ms - TURN_PROMPT_MS)
        self._emit(ScoreTurn(turn.number, turn.attempt, start_ms, turn.scored_ms))

    def score_due(self, policy: Policy) -> bool:
        """The pause has lasted long enough for a first question, or the last answer was "unfinished"."""
        turn, gate = self.turn, self.gate
        if turn is None or turn.forced or turn.contested or not policy.use_turn_detector:
            return False
        if turn.scored_ms <= gate.voiced_until_ms:  # not asked since the caller fell silent
            return gate.paused
        return (
            turn.probability is not None
            and turn.probability <= policy.turn_threshold
            and gate.heard_ms - turn.scored_ms >= policy.rescore_every_ms
            and gate.silence_ms <= policy.unsure_silence_ms
        )

    def ask_partial(self, every_ms: int, longest_ms: int) -> None:
        """A partial transcript, when one is due and none is under way."""
        turn = self.turn
        if (
            turn is None
            or turn.partial_busy
            or self.gate.heard_ms - turn.partial_from_ms < every_ms
        ):
            return
        if self.gate.heard_ms - turn.from_ms > longest_ms:
            return
        turn.partial_busy = True
        turn.partial_from_ms = self.gate.heard_ms
        self._emit(
            Transcribe(turn.number, turn.attempt, turn.from_ms, self.gate.heard_ms, partial=True)
        )

    def continue_turn(self) -> None:
        """Speech went on after a pause: what was asked is stale, and a long beginning is kept as it is."""
        turn = self.turn
        assert turn is not None
        turn.attempt += 1
        turn.probability = None
        turn.text = None
        turn.ahead_ms = 0

    def keep_beginning(self, policy: Policy) -> None:
        """Before speech goes on: a long, already transcribed beginning is never transcribed again."""
        turn = self.turn
        assert turn is not None
        if turn.text and turn.end_ms - turn.from_ms >= policy.keep_transcript_after_ms:
            turn.kept, turn.from_ms = turn.text, turn.end_ms

    def close_turn(self) -> None:
        """The turn is over, whatever became of it. Speech after the end of a forced one is not part of it."""
        turn, self.turn = self.turn, None
        if turn is not None and turn.forced:
            self.taken_ms = max(self.taken_ms, turn.end_ms)
            self.gate.split(turn.end_ms)
            return
        if turn is not None:
            self.taken_ms = max(self.taken_ms, turn.end_ms, self.gate.voiced_until_ms)
        self.gate.reset()

    @property
    def speech_ms(self) -> int:
        """From onset to the last speech of the current turn."""
        return 0 if self.turn is None else self.gate.voiced_until_ms - self.turn.onset_ms

    def needed_from_ms(self, policy: Policy, answered: Turn | None = None) -> int:
        """Caller audio before this will never be asked for. `answered`: an ended turn that may be reopened."""
        turn = self.turn or answered
        if turn is not None:
            return turn.start_ms
        if not policy.auto_turns:
            return self.taken_ms
        needed_ms = self.gate.heard_ms - policy.prefix_padding_ms - 2_000
        if self.gate.in_speech:  # not answered for yet: the agent could not be interrupted
            needed_ms = min(needed_ms, self.gate.onset_ms - policy.prefix_padding_ms)
        return max(self.taken_ms, needed_ms)

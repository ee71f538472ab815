"""One record per turn: the only source of every latency figure, table, metric, trace and report.

All marks are milliseconds since the call started, None where the step did not happen. Plain data.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TurnRecord:
    number: int
    reply: str = ""
    kind: str = "answer"
    """`answer`, `greeting`, `prompt`, `goodbye`, `apology`, `filler`, `said` or `requested`."""
    user_text: str = ""
    reply_text: str = ""
    heard_text: str = ""
    status: str = ""
    """How the reply ended: completed, cancelled, incomplete, failed; `none` when none was wanted."""
    interrupted: bool = False
    false_interruptions: int = 0
    """Interruptions that were nothing."""
    preemptive_generations: int = 0
    """Replies that were begun before the turn was certain, the used one included."""
    preemptive_used: bool = False
    turn_probability: float | None = None
    text_end_probability: float | None = None
    """What the language model gave the user's words to end where they did."""

    speech_start_ms: int | None = None
    speech_end_ms: int | None = None
    """The acoustic end of the user's speech, as the VAD heard it."""
    transcribe_ms: int | None = None
    """The transcript that was used was asked for."""
    transcript_ms: int | None = None
    score_asked_ms: int | None = None
    turn_scored_ms: int | None = None
    committed_ms: int | None = None
    generate_ms: int | None = None
    first_token_ms: int | None = None
    text_done_ms: int | None = None
    speak_ms: int | None = None
    """The first clause was given to text to speech."""
    first_audio_ms: int | None = None
    audio_done_ms: int | None = None
    first_sent_ms: int | None = None
    first_played_ms: int | None = None
    """Reported by the client, or taken for the moment it was sent."""
    ended_ms: int | None = None

    audio_ms: int = 0
    """Audio made for the reply."""
    played_ms: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    characters: int = 0

    def forget_reply(self) -> None:
        """A new reply for the same turn: nothing of an earlier one, guessed or withdrawn, may count for it."""
        self.reply_text = self.heard_text = self.status = ""
        self.interrupted = self.preemptive_used = False
        self.text_end_probability = None
        self.committed_ms = self.generate_ms = self.first_token_ms = self.text_done_ms = None
        self.speak_ms = self.first_audio_ms = self.audio_done_ms = None
        self.first_sent_ms = self.first_played_ms = self.ended_ms = None
        self.audio_ms = self.played_ms = self.false_interruptions = 0
        self.input_tokens = self.output_tokens = self.cached_tokens = self.characters = 0

    @property
    def voice_to_voice_ms(self) -> int | None:
        """End of the user's speech to the first sound of the answer."""
        if self.first_sent_ms is None or self.speech_end_ms is None:
            return None
        # A report may name an earlier moment than the sending, never truthfully.
        return max(self.first_sent_ms, self.first_played_ms or 0) - self.speech_end_ms

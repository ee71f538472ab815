"""What an owner may choose about how a call is conducted, each setting with a sane default.

All times are milliseconds. Where the values come from is the business of `antiphon.config`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How one call is conducted. Immutable: a changed policy is a new one (`dataclasses.replace`)."""

    # -- hearing the user -------------------------------------------------------------------------
    speech_threshold: float = 0.5
    """Speech probability from which a window counts as speech."""
    silence_threshold: float = 0.5
    """Probability below which a window counts as silence; between the two the last state holds."""
    min_speech_ms: int = 96
    """Speech shorter than this never starts a turn."""
    prefix_padding_ms: int = 300
    """Audio kept from before the detected onset."""
    auto_turns: bool = True
    """End turns by listening. False: only when the client commits."""
    auto_reply: bool = True
    """Answer a turn when it ends. False: only when the client asks for a reply."""

    # -- end of turn --------------------------------------------------------------------------------
    preemptive_generation_after_ms: int = 64
    """Silence after which a reply is generated preemptively: prepared, unheard, in case the turn is over. 0: never."""
    transcribe_ahead: bool = True
    """Transcribe at the first silent window already, before the pause is credible."""
    patience: float = 0.5
    """How long to wait for a caller who may go on: 0 answers soonest and cuts off most, 1 waits longest."""
    min_silence_ms: int = 240
    """No turn ends after less silence, however finished it sounds and reads."""
    unsure_silence_ms: int = 700
    """Nor after less than this when the words ask for more, or only stop the agent."""
    max_silence_ms: int = 1800
    """Silence that ends any turn, dictation apart."""
    dictation_silence_ms: int = 2500
    """Silence that ends a turn while digits, spelling or an e-mail address are being dictated."""
    plain_silence_ms: int = 600
    """Silence that ends a turn when there is no turn detector to ask."""
    turn_threshold: float = 0.5
    """Turn-detector probability that says nothing: above it a turn sounds finished, the wait is shorter."""
    text_end_threshold: float = 0.02
    """A turn reads unfinished when the language model gives its words less than this to end there; 0: do not ask it."""
    use_turn_detector: bool = True
    """False: there is none, go by words and silence."""
    rescore_every_ms: int = 0
    """While a pause lasts, the detector is asked again this often, until `unsure_silence_ms`; 0: once."""
    reopen_turns: bool = True
    """A user who goes on before the reply is audible continues the same turn."""
    max_turn_ms: int = 120_000
    """A turn is ended by force after this much speech."""
    keep_transcript_after_ms: int = 12_000
    """In a long turn, what lies before a pause is transcribed once after this much audio and kept."""

    # -- partial transcripts while the user speaks ------------------------------------------------
    partial_every_ms: int = 320
    """Interval of partial transcripts; 0: none."""
    warm_prompt: bool = True
    """Read partial transcripts into the language model's prompt cache."""

    # -- speaking -----------------------------------------------------------------------------------
    first_segment_words: int = 3
    """Words of the first segment, so that the voice starts early; 0: wait for punctuation."""
    max_segment_chars: int = 140
    """A segment without punctuation is cut at a space before this."""
    speak_ahead_ms: int = 4_000
    """Speech synthesised beyond what has been played, at most."""
    max_reply_chars: int = 20_000
    """A reply ends with the sentence that reaches this; 0: no limit. 4,096 tokens of English stay below it."""
    max_reply_ms: int = 300_000
    """A reply ends with the clause that reaches so much speech; 0: no limit."""
    speak_replies: bool = True
    """False: replies are text only."""

    # -- being interrupted --------------------------------------------------------------------------
    interruptible: bool = True
    """False: the user's speech never stops the agent; it is heard afterwards."""
    overhear: bool = False
    """With `interruptible` False: the user's speech is a turn at once, beside the reply, and is not answered."""
    barge_in: str = "confirm"
    """`confirm`: pause, decide, then stop or resume. `immediate`: stop at the first speech."""
    barge_in_threshold: float = 0.6
    """Speech probability needed while the agent speaks: its echo is louder than a silent room."""
    barge_in_min_speech_ms: int = 96
    """Speech shorter than this never pauses the agent."""
    barge_in_sure_ms: int = 900
    """Speech this long is an interruption whatever its words."""
    barge_in_check_ms: int = 260
    """The interruption's words are looked at after this much speech, and again at this interval."""
    barge_in_timeout_ms: int = 1_500
    """A pause for overlapping speech never lasts longer than this after the user fell silent."""

    # -- silence ------------------------------------------------------------------------------------
    idle_prompt_after_ms: int = 7_000
    """Silence of both sides after which the agent asks; 0: never."""
    max_idle_prompts: int = 2
    """After so many unanswered prompts the agent says goodbye and ends the call."""
    idle_answer: bool = False
    """True: the language model answers a silence that follows its words, and silence never ends the call."""

    # -- while a function runs ----------------------------------------------------------------------
    tool_filler_after_ms: int = 1_200
    """Silence, while a function of ours runs, after which the agent says that it takes a moment; 0: never."""

    # -- when models do not answer ------------------------------------------------------------------
    transcript_timeout_ms: int = 15_000
    """From the end of speech to its transcript; then the agent apologises."""
    reply_timeout_ms: int = 20_000
    """From the end of a turn to the first audible sound of the reply."""
    playout_grace_ms: int = 3_000
    """How long a client's playout report may be overdue before playout counts as done."""

    # -- phrases ------------------------------------------------------------------------------------
    greeting: str = "Hi there! What would you like to talk about?"
    """Said when a call starts; empty: wait for the user."""
    idle_prompt: str = "Are you still there?"
    """Said after a silence; empty: nothing."""
    goodbye: str = "I'll let you go now. Goodbye!"
    """Said before the agent ends the call; empty: it just ends."""
    tool_filler: str = "One moment, please."
    """Said when a function takes long; empty: nothing. A function may have words of its own."""
    apology: str = "Sorry, something went wrong on my side. Could you say that again?"
    """Said when a model has failed; empty: nothing."""

    # -- what the client can do (negotiated, not configured) ----------------------------------------
    client_can_clear: bool = False
    """The client drops audio that it has not played yet when told so."""
    client_reports_played: bool = False
    """The client says how much of a reply it has played; otherwise a clock is assumed."""

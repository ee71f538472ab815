"""Everything a conversation can ask for: one closed set of frozen dataclasses.

The call performs them in order: work for models, the agent's voice, and notices that a protocol translates for its
client or ignores. None of them carries audio. An action that asks a model for a result carries the number of a job,
which the result names; warming a prompt has no result, and a function's result names the function call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.core.floor import Floor
from antiphon.core.history import Item, ToolRequest
from antiphon.core.turn_record import TurnRecord

# --- work for models --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe the user's audio from `start_ms` to `end_ms` (audio clock). `partial`: the user still speaks.

    `replaces`: an earlier job for the same turn whose result is stale by this; 0: none.
    """

    job: int
    start_ms: int
    end_ms: int
    partial: bool = False
    replaces: int = 0


@dataclass(frozen=True, slots=True)
class ScoreTurn:
    """Ask the turn detector about the user's audio from `start_ms` to `end_ms`."""

    job: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class WarmPrompt:
    """Read history and what the user has said so far into the prompt cache. Best effort: there is no result."""

    history: tuple[Item, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate a reply. `preemptive`: nothing of it may be shown or heard, and no tool run, before `ReplyBegan`."""

    job: int
    reply: str
    history: tuple[Item, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    preemptive: bool = False
    score_text_end: bool = False
    """First say how likely the user's last words end where they end, where the model can."""


@dataclass(frozen=True, slots=True)
class Synthesize:
    """Synthesize this segment of the reply's text."""

    job: int
    reply: str
    segment: int
    text: str


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Stop all work on this reply and forget its audio."""

    reply: str


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run this function once and return its result. Only ever asked for after the turn was committed."""

    reply: str
    call: ToolRequest


# --- the agent's voice ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Play:
    """Send the reply's audio from `from_ms` on, as it becomes available."""

    reply: str
    from_ms: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop sending at once and have the client drop what it has not played; the reply may be resumed."""

    reply: str


@dataclass(frozen=True, slots=True)
class StopPlayout:
    """Stop sending for good and have the client drop what it has not played."""

    reply: str


# --- notices for the client -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FloorChanged:
    floor: Floor


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The user started a turn, which will become the item `item`."""

    item: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The turn is over; `at_ms` includes the silence that ended it."""

    item: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechDropped:
    """What began as `item` was nothing: noise, an echo, "mm-hm" or no words."""

    item: str


@dataclass(frozen=True, slots=True)
class SilencePassed:
    """Both sides were silent for too long; the silence joins the history as `item`, and is answered."""

    item: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """The user's words, so far (`final` False) or for good. A later transcript of an item replaces the earlier."""

    item: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class ItemAdded:
    item: Item
    after: str | None


@dataclass(frozen=True, slots=True)
class ItemRemoved:
    item: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """The assistant item now ends where the user stopped hearing it."""

    item: str
    heard_ms: int
    heard: str
    unheard: str


@dataclass(frozen=True, slots=True)
class ReplyBegan:
    """A reply is now certain. `item`: the assistant item it will become."""

    reply: str
    item: str
    options: Mapping[str, Any] = field(default_factory=dict)
    speaks: bool = True


@dataclass(frozen=True, slots=True)
class ReplyWords:
    """More text of a certain reply."""

    reply: str
    item: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyCallWords:
    """More of the arguments of a call that a certain reply is writing. `ReplyCalls` follows, unless it is stopped."""

    reply: str
    item: str
    call_id: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyCalls:
    """A certain reply asks for a function call, recorded as the item `item`."""

    reply: str
    item: str
    call: ToolRequest


@dataclass(frozen=True, slots=True)
class ReplyGenerated:
    """All text and audio of the reply has been made; it may still be playing."""

    reply: str
    item: str
    finish: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply is over. `status`: completed, cancelled, incomplete or failed."""

    reply: str
    item: str
    status: str
    reason: str = ""
    heard: str = ""
    unheard: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something could not be done. `code` is a stable word for programs, `message` a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnRecorded:
    """Everything that is known of the turn that has just ended."""

    record: TurnRecord


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the call now. Nothing follows."""

    reason: str


Action = (
    Transcribe
    | ScoreTurn
    | WarmPrompt
    | Generate
    | Synthesize
    | CancelReply
    | RunTool
    | Play
    | Pause
    | StopPlayout
    | FloorChanged
    | SpeechBegan
    | SpeechEnded
    | SpeechDropped
    | SilencePassed
    | Transcript
    | TranscriptFailed
    | ItemAdded
    | ItemRemoved
    | ItemTruncated
    | ReplyBegan
    | ReplyWords
    | ReplyCallWords
    | ReplyCalls
    | ReplyGenerated
    | ReplyEnded
    | Fault
    | TurnRecorded
    | Hangup
)

"""Everything that can happen to a conversation: one closed set of frozen dataclasses.

Protocols, models and the call speak to the Conversation in these words only. Audio never enters, only positions and
durations. A result of a model names the job of the action that asked for it; a job that is not wanted any more is
unknown to the Conversation, and its results are dropped. `*_ms` positions of the user's audio count from its first
sample (the audio clock), those of a reply from that reply's first sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy

# --- the call ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The line is open. `greet`: say the policy's greeting."""

    greet: bool = True


@dataclass(frozen=True, slots=True)
class HungUp:
    """The user is gone."""

    reason: str = "caller hung up"


@dataclass(frozen=True, slots=True)
class Finish:
    """End the call from our side; `say_goodbye`: play `text` (or the policy's goodbye) out first."""

    reason: str = "finished"
    say_goodbye: bool = False
    text: str = ""
    unless_caller_speaks: bool = False
    """The call goes on if the user is speaking, or speaks before the goodbye is over: it was a misunderstanding."""


@dataclass(frozen=True, slots=True)
class Configure:
    """From now on this policy holds."""

    policy: Policy


# --- the user ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VadScored:
    """Speech probability of the window of the user's audio that ends at `end_ms`."""

    probability: float
    end_ms: int


@dataclass(frozen=True, slots=True)
class UserText:
    """The user wrote instead of speaking. `reply`: and wants an answer."""

    text: str
    reply: bool = True


@dataclass(frozen=True, slots=True)
class CommitInput:
    """Take what was heard since the last turn, up to `end_ms`, as a finished turn.

    `reply`: whether to answer it; None: as the policy says.
    """

    end_ms: int
    reply: bool | None = None


@dataclass(frozen=True, slots=True)
class ClearInput:
    """Forget what was heard since the last turn, up to `end_ms`."""

    end_ms: int


# --- what a client asks for that controls the call itself -------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestReply:
    """Answer now, from the history as it stands.

    `options` are for whoever generates (instructions, tools, token limit); the core passes them on.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    speak: bool | None = None
    """False: text only; None: as the policy says."""


@dataclass(frozen=True, slots=True)
class Say:
    """Speak exactly this, interrupting nobody: ignored unless the floor is open."""

    text: str


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Stop the live reply, or only this one where `reply` is given."""

    reply: str = ""


@dataclass(frozen=True, slots=True)
class AddItem:
    item: Item
    after: str | None = None
    """Id of the item before it; `"root"`: at the start; None: at the end."""


@dataclass(frozen=True, slots=True)
class DeleteItem:
    item: str


@dataclass(frozen=True, slots=True)
class TruncateItem:
    """The user heard only `heard_ms` of this assistant item."""

    item: str
    heard_ms: int


# --- results of models: each names the job that it is a result of -----------------------------------


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What was said between the positions that `Transcribe` named. The job is done."""

    job: int
    text: str


@dataclass(frozen=True, slots=True)
class TurnScored:
    """How finished the turn sounds, 0 to 1. The job is done."""

    job: int
    probability: float


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A piece of the reply's text."""

    job: int
    text: str


@dataclass(frozen=True, slots=True)
class TextEndScored:
    """How likely the user's words end where they end, by the language model that was given them for a reply."""

    job: int
    probability: float


@dataclass(frozen=True, slots=True)
class ReplyToolText:
    """More of the arguments of a function call that the reply is about to ask for."""

    job: int
    call_id: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyTool:
    """The reply asks for a function call."""

    job: int
    call: ToolRequest


@dataclass(frozen=True, slots=True)
class ReplyComplete:
    """The language model has finished. The job is done."""

    job: int
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SegmentAudio:
    """`duration_ms` more of the segment's audio is at hand."""

    job: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class SegmentComplete:
    """All audio of the segment is at hand. The job is done."""

    job: int


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A model could not do what it was asked for."""

    job: int
    reason: str
    code: str = ""
    """`invalid_request`: it could not be asked for like this, and no model is to blame."""


# --- functions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """We run this function ourselves, so that a long wait may be filled. Not posted for functions of the client."""

    call_id: str
    filler: str = ""
    """Said when it takes long; empty: the policy's."""


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A function call has a result for the language model."""

    call_id: str
    output: str


# --- playout ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioSent:
    """The reply's audio up to `sent_ms` has left for the user."""

    reply: str
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Played:
    """The client reports that the reply has been played up to `played_ms`."""

    reply: str
    played_ms: int


Result = (
    Transcribed
    | TurnScored
    | ReplyText
    | TextEndScored
    | ReplyToolText
    | ReplyTool
    | ReplyComplete
    | SegmentAudio
    | SegmentComplete
    | JobFailed
)
"""Events that name the job they belong to."""

Event = (
    Started
    | HungUp
    | Finish
    | Configure
    | VadScored
    | UserText
    | CommitInput
    | ClearInput
    | RequestReply
    | Say
    | RequestCancel
    | AddItem
    | DeleteItem
    | TruncateItem
    | Result
    | ToolStarted
    | ToolReturned
    | AudioSent
    | Played
)

"""All that a conversation knows: plain data, and what keeps it consistent. Who decides anything stands in `decide`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.agent_reply import AgentReply, PendingReply
from antiphon.core.floor import Floor
from antiphon.core.history import History
from antiphon.core.playout import PlayoutLedger
from antiphon.core.policy import Policy
from antiphon.core.tool_filler import ToolFillers
from antiphon.core.turn_record import TurnRecord
from antiphon.core.user_turn import UserTurn
from antiphon.core.vad import SpeechDetector


class Fact(StrEnum):
    """What a handler has recorded, or what follows from the State: the rows of the decision table."""

    # recorded by the handlers, forgotten when everything is decided
    NO_TURN = "audio that belongs to no turn was scored"
    WINDOW = "a window of the current turn was scored"
    TOO_LONG = "the current turn is longer than turns may be"
    PAUSED = "silence after speech is credible"
    RESUMED = "speech went on after a pause"
    PARTIAL = "a partial transcript is there"
    TRANSCRIBED = "the transcript is there"
    TRANSCRIPT_FAILED = "the transcript failed"
    NEWS = "more is known of the current turn"
    COMMITTED = "the client commits its audio"
    CLEARED = "the client clears its audio"
    USER_TEXT = "the user wrote something"
    REPLY_REQUESTED = "the client asks for a reply"
    REPLY_STOPPED = "the client stops the reply"
    ITEM_DELETED = "the client deletes an item"
    SCRIPT = "a fixed text is to be said"
    GOODBYE = "the goodbye is to be said"
    HANG_UP = "the call is to end"
    # deadlines that have passed
    FILLER_DUE = "a function keeps the user waiting"
    IDLE = "both sides were silent for too long"
    TRANSCRIPT_OVERDUE = "no transcript in time"
    REPLY_OVERDUE = "no sound of the reply in time"
    UNDECIDED = "overlapping speech is undecided for too long"
    STALLED = "the reply makes no progress"
    # following from the State
    SPEECH_AT_ONCE = "the user starts to speak, and any speech interrupts"
    SPEECH = "the user starts to speak"
    OVERHEARD = "the user speaks beside a reply that is not to be interrupted"
    SILENT = "the user is silent"
    TURN_EMPTY = "the turn has no words"
    TURN_OVER = "the turn is over and is to be answered"
    TURN_OVER_UNANSWERED = "the turn is over, no reply is wanted"
    UNTRANSCRIBED = "no transcript will come"
    APOLOGY_DUE = "no transcript, and an answer was due"
    MEANT = "overlapping speech is meant, the user still speaks"
    MEANT_BRIEFLY = "overlapping speech is meant, the user is silent again"
    NOT_MEANT = "overlapping speech is not meant"
    OVERHEARD_COMMITTED = "the client commits while the user speaks beside the reply"
    TEXT_OVER_REPLY = "the user wrote something while there is a reply"
    HANDED_OVER = "a reply is asked for, all of the last one was sent"
    REPLY_DUE = "a pending reply can be given"
    AUDIBLE = "there is audio of the reply"
    SEGMENT_DUE = "the next segment is wanted"
    GENERATED = "all of the reply is made"
    REPLY_OVER = "the reply was played out, or given up"


class Purpose(Enum):
    """What a job is for."""

    TRANSCRIPT = auto()
    PARTIAL = auto()
    TURN_SCORE = auto()
    REPLY = auto()
    SEGMENT = auto()


@dataclass(slots=True)
class ModelJob:
    """What a model was asked for, and for whom."""

    purpose: Purpose
    owner: UserTurn | AgentReply
    wanted: bool = True
    """False: the model is still at it, and its result will be dropped."""


class Jobs:
    """What the models are at. A result whose job is not here, or not wanted any more, is stale."""

    def __init__(self) -> None:
        self._open: dict[int, ModelJob] = {}
        self._count = 0

    def begin(self, purpose: Purpose, owner: UserTurn | AgentReply) -> int:
        """-> the number of a new job."""
        self._count += 1
        self._open[self._count] = ModelJob(purpose, owner)
        return self._count

    def get(self, job_id: int) -> ModelJob | None:
        """What a result belongs to; None when it is stale."""
        job = self._open.get(job_id)
        return job if job is not None and job.wanted else None

    def pop(self, job_id: int) -> ModelJob | None:
        """The same for a job's last result."""
        job = self._open.pop(job_id, None)
        return job if job is not None and job.wanted else None

    def busy(self, purpose: Purpose, owner: UserTurn | AgentReply) -> bool:
        """A model is at such a job, whether its result is still wanted or not."""
        return any(j.purpose is purpose and j.owner is owner for j in self._open.values())

    def outdate(self, turn: UserTurn) -> None:
        """More was said: results for the turn as it stood are not wanted. A partial transcript keeps its model busy."""
        for job_id, job in tuple(self._open.items()):
            if job.owner is turn and job.purpose is Purpose.PARTIAL:
                job.wanted = False
            elif job.owner is turn:
                del self._open[job_id]

    def forget(self, owner: UserTurn | AgentReply) -> None:
        """Nothing is wanted for it any more."""
        for job_id in [job_id for job_id, job in self._open.items() if job.owner is owner]:
            del self._open[job_id]


@dataclass(slots=True)
class State:
    policy: Policy
    floor: Floor = Floor.OPEN
    since_ms: int = 0
    """When the floor changed last."""
    idle_since_ms: int = 0
    """Since when nothing has come from the other side."""
    facts: set[Fact] = field(default_factory=set)
    out: list[act.Action] = field(default_factory=list)
    jobs: Jobs = field(default_factory=Jobs)
    history: History = field(default_factory=History)
    # -- the user --
    vad: SpeechDetector = field(default_factory=SpeechDetector)
    turns: list[UserTurn] = field(default_factory=list)
    """Turns of which something is still awaited, in the order in which they began."""
    taken_ms: int = 0
    """Audio up to here belongs to earlier turns."""
    turn_count: int = 0
    item_count: int = 0
    """User items that were spoken."""
    text_count: int = 0
    """User items that were written."""
    unanswered_prompts: int = 0
    """Idle prompts since the user last said anything."""
    answered: UserTurn | None = None
    """The turn that the live reply answers, for when the user goes on before it is audible."""
    # -- the agent --
    reply: AgentReply | None = None
    """The live reply, or a preemptive one."""
    pending: PendingReply | None = None
    reply_count: int = 0
    ledgers: dict[str, tuple[PlayoutLedger, int]] = field(default_factory=dict)
    """Of the latest spoken items, and how far each was heard, for a client that truncates them later."""
    busy_until_ms: int = 0
    """Clock time until which the client plays what earlier replies have sent."""
    running_tools: set[str] = field(default_factory=set)
    """Function calls without a result."""
    called_tools: set[str] = field(default_factory=set)
    """Ids of all function calls so far: none is run twice."""
    calling: TurnRecord | None = None
    """Of the reply that called functions last."""
    fillers: ToolFillers = field(default_factory=ToolFillers)
    goodbye: ev.Finish = field(default_factory=ev.Finish)
    """Asked for the goodbye that is being said."""
    # -- what a fact of the same event is about --
    script: tuple[str, str] = ("", "")
    """Kind and words of a fixed text that is to be said."""
    requested: PendingReply = field(default_factory=lambda: PendingReply("requested"))
    stop_reason: str = ""
    stop_ms: int | None = None
    """How much of the stopped reply was heard, where the client knows better."""
    commit: ev.CommitInput = field(default_factory=lambda: ev.CommitInput(0))
    clear_ms: int = 0
    text: ev.UserText = field(default_factory=lambda: ev.UserText(""))
    deleted_item: str = ""
    finish: ev.Finish = field(default_factory=ev.Finish)
    end_reason: str = ""

    def note(self, fact: Fact) -> None:
        self.facts.add(fact)

    def say(self, kind: str, text: str) -> None:
        """Have a fixed text said, if the floor is open."""
        self.script = (kind, text)
        self.note(Fact.SCRIPT)

    def emit(self, action: act.Action) -> None:
        self.out.append(action)

    def take_actions(self) -> list[act.Action]:
        out, self.out = self.out, []
        return out

    def stay_awake(self, now_ms: int) -> None:
        """The other side is there: silence is counted anew."""
        self.idle_since_ms = now_ms

    # -- turns --------------------------------------------------------------------------------------

    @property
    def turn(self) -> UserTurn | None:
        """The current turn: the one that holds the floor."""
        for turn in self.turns:
            if turn.holds_floor:
                return turn
        return None

    @property
    def current(self) -> UserTurn:
        """The current turn, where there must be one."""
        turn = self.turn
        assert turn is not None, f"no current turn while the floor is {self.floor}"
        return turn

    @property
    def turn_open(self) -> bool:
        return self.turn is not None

    @property
    def overheard(self) -> UserTurn | None:
        for turn in self.turns:
            if not turn.holds_floor and not turn.forced:
                return turn
        return None

    @property
    def detached(self) -> tuple[UserTurn, ...]:
        if not self.turns:
            return ()
        return tuple(turn for turn in self.turns if not turn.holds_floor and turn.forced)

    @property
    def reopenable(self) -> UserTurn | None:
        """The turn that goes on if the user speaks now.

        Not one that was ended by force, and not once a function has run for its answer: that cannot be taken back.
        """
        reply, turn = self.reply, self.answered
        if self.floor is not Floor.THINKING or not self.policy.reopen_turns:
            return None
        if turn is None or turn.forced or reply is None or reply.first_call_item:
            return None
        return turn

    def needed_from_ms(self) -> int:
        """The user's audio before this will never be asked for."""
        needed_ms, beside = self.kept_from_ms(self.turn or self.reopenable), self.overheard
        return needed_ms if beside is None else min(needed_ms, beside.start_ms)

    def kept_from_ms(self, turn: UserTurn | None) -> int:
        """The same with `turn` as the only one; None: for the turn that may begin."""
        policy, vad = self.policy, self.vad
        if turn is not None:
            return turn.start_ms
        if not policy.auto_turns:
            return self.taken_ms
        needed_ms = vad.heard_ms - policy.prefix_padding_ms - 2_000
        if vad.in_speech:  # not answered for yet: the agent could not be interrupted
            needed_ms = min(needed_ms, vad.onset_ms - policy.prefix_padding_ms)
        return max(self.taken_ms, needed_ms)

    # -- the reply ----------------------------------------------------------------------------------

    @property
    def live(self) -> AgentReply:
        """The live reply, where there must be one."""
        assert self.reply is not None, f"no reply while the floor is {self.floor}"
        return self.reply

    @property
    def agent_audible(self) -> bool:
        """The agent's voice is playing, so that its echo may be heard."""
        return self.floor in (Floor.AGENT, Floor.CLOSING)

    @property
    def reply_pending(self) -> bool:
        return self.pending is not None

    def drop_reply(self) -> AgentReply | None:
        """Stop all work on the live or preemptive reply -> what it was."""
        reply, self.reply = self.reply, None
        if reply is not None:
            self.jobs.forget(reply)
            self.emit(act.CancelReply(reply.id))
        return reply

    def drop_preemptive(self) -> None:
        """The history, or what is asked for, has changed: a reply that does not know it is worth nothing."""
        if self.reply is not None and not self.reply.committed:
            self.drop_reply()

    def warm_head(self) -> None:
        """Have all that is certain of the next prompt read while nobody waits for it."""
        if self.policy.warm_prompt:
            self.emit(act.WarmPrompt(self.history.snapshot(), ""))

    # -- ids ----------------------------------------------------------------------------------------

    def is_taken(self, item_id: str) -> bool:
        """An item of this id exists, or is announced."""
        reply = self.reply
        return (
            self.history.find(item_id) is not None
            or any(turn.item == item_id for turn in self.turns)
            or (reply is not None and item_id in (reply.item, *reply.call_items.values()))
        )

    def free_id(self, wanted: str) -> str:
        """`wanted`, or something like it when a client has used that up."""
        number, free = 1, wanted
        while self.is_taken(free):
            number += 1
            free = f"{wanted}_{number}"
        return free

    def new_item(self) -> str:
        """The id of the user's next item."""
        self.item_count += 1
        while self.is_taken(f"u{self.item_count}"):
            self.item_count += 1
        return f"u{self.item_count}"

    def record_turn(self, record: TurnRecord) -> None:
        """A turn has ended. Its record is copied: the turn may go on."""
        self.emit(act.TurnRecorded(replace(record)))

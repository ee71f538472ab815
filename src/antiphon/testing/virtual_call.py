"""A whole call in virtual time: a Conversation, a caller who follows a script, and models with fixed delays.

No clock, no audio, no threads: ten minutes of call take milliseconds, and every run is the same. For tests of how an
agent's policy behaves, and the source of the golden traces.

    world = World(Policy(greeting=""))
    world.speak(1_000, "what time is it", 1_200)     # at 1 s, for 1.2 s
    world.run(10_000)
    assert world.said() == ["You said: what time is it."]
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.conversation import Conversation, ConversationView
from antiphon.core.floor import Floor
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.observe import call_trace

WINDOW_MS = 32
_WORD_MS = 300
_SEND_MS = 100
_LEAD_MS = 200

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Speech:
    """The caller says `text` from `start_ms` for `duration_ms`; what a transcript shows grows with time."""

    start_ms: int
    duration_ms: int
    text: str
    probability: float = 0.95

    def until(self, from_ms: int, to_ms: int) -> str:
        """The words that fall between two positions of the audio clock."""
        words = self.text.split()
        each = self.duration_ms / max(len(words), 1)
        return " ".join(
            w
            for i, w in enumerate(words)
            if self.start_ms + i * each >= from_ms - 1 and self.start_ms + (i + 0.6) * each <= to_ms
        )


@dataclass(slots=True)
class Delays:
    """How long the models take, in ms."""

    transcribe: int = 60
    score: int = 30
    first_token: int = 110
    token: int = 15
    speak: int = 60
    tool: int = 400


@dataclass(slots=True)
class World:
    """One simulated call. Change its public fields before `run`."""

    policy: Policy = field(default_factory=Policy)
    delays: Delays = field(default_factory=Delays)
    reply: Callable[[str], str] = lambda words: f"You said: {words}."
    """The latest user text -> what the language model answers."""
    calls: Callable[[tuple[Item, ...]], Sequence[ToolRequest]] = lambda history: ()
    """History -> function calls that the language model asks for after its words."""
    ours: bool = True
    """Functions are run by us; False: by the client."""
    filler: str = ""
    """What a function of ours wants said when it takes long."""
    finished: Callable[[str], float] = lambda words: 0.9
    """Words so far -> what the turn detector says."""
    text_end_probability: Callable[[str], float | None] = lambda words: 0.97
    """Words so far -> what the language model gives them to end there; None: it does not judge."""
    fail: dict[str, int] = field(default_factory=dict)
    """Action name -> how many of them fail before they work again."""
    fail_after_words: int = 0
    """A failing `Generate` says so many words first."""
    reports: bool = False
    """The caller's client reports what it has played."""
    paced: bool = True
    """The agent's audio leaves in real time; False: as fast as it is made."""
    now_ms: int = 0
    log: list[tuple[int, act.Action]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """The call's trace."""
    _speech: list[Speech] = field(default_factory=list)
    _queue: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _sequence: int = 0
    _sent_ms: int = 0
    _audio_output: int = 0
    """Counts Play, Pause and Silence: audio in flight of an earlier one is no longer sent."""
    _conversation: Conversation | None = None
    _dead: set[str] = field(default_factory=set)
    _hung: set[str] = field(default_factory=set)

    # -- the script -----------------------------------------------------------------------------

    def speak(self, at_ms: int, text: str, duration_ms: int, probability: float = 0.95) -> None:
        """The caller speaks, on the audio clock."""
        self._speech.append(Speech(at_ms, duration_ms, text, probability))

    def at(self, at_ms: int, event: ev.Event) -> None:
        """Something else happens."""
        self._schedule(at_ms, lambda: self._feed(event))

    def hang(self, action: str) -> None:
        """From now on results of this kind of action never come."""
        self._hung.add(action)

    # -- running --------------------------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        if self._conversation is None:
            self._conversation = Conversation(self.policy)
            self.lines.append(call_trace.header(self.policy))
        return self._conversation

    @property
    def view(self) -> ConversationView:
        return self.conversation.view

    def run(self, until_ms: int) -> World:
        """Everything up to `until_ms`, or the end of the call."""
        if not self.lines:
            self.feed(ev.Started())
            self._schedule(self.now_ms + WINDOW_MS, self._window)
        while self.floor is not Floor.ENDED:
            due_ms = self.conversation.deadline()
            next_ms = self._queue[0][0] if self._queue else None
            if due_ms is not None and (next_ms is None or due_ms <= next_ms):
                if due_ms > until_ms:
                    break
                self.now_ms = max(self.now_ms, due_ms)
                self._record(None, self.conversation.tick(self.now_ms))
                after_ms = self.conversation.deadline()
                assert after_ms is None or after_ms > self.now_ms, "deadline in the past after tick"
                continue
            if next_ms is None or next_ms > until_ms:
                break
            self.now_ms, _, step = heapq.heappop(self._queue)
            step()
        return self

    def feed(self, event: ev.Event) -> list[act.Action]:
        """This event, now -> what the conversation answered."""
        out = self.conversation.handle(event, self.now_ms)
        self._record(event, out)
        return out

    def _feed(self, event: ev.Event) -> None:
        if self.floor is not Floor.ENDED:
            self.feed(event)

    def _record(self, event: ev.Event | None, out: list[act.Action]) -> None:
        if out or event is not None:
            self.lines.append(call_trace.line(self.now_ms, event, out))
        for action in out:
            self.log.append((self.now_ms, action))
            self._perform(action)

    # -- results --------------------------------------------------------------------------------

    @property
    def floor(self) -> Floor:
        return self.view.floor

    def actions(self, kind: type[A]) -> list[A]:
        return [a for _, a in self.log if isinstance(a, kind)]

    def when(self, kind: type) -> list[int]:
        return [t for t, a in self.log if isinstance(a, kind)]

    def said(self) -> list[str]:
        """The agent's words that were heard, reply by reply."""
        return [a.heard for _, a in self.log if isinstance(a, act.ReplyEnded)]

    def transcript(self) -> list[tuple[str, str]]:
        """(role, text) of everything the language model is told."""
        return [(i.role, i.text) for i in self.view.history.snapshot()]

    # -- the world's parts ----------------------------------------------------------------------

    def _schedule(self, at_ms: int, step: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (at_ms, self._sequence, step))

    def _later(self, delay_ms: int, event: ev.Event, reply: str = "") -> None:
        def step() -> None:
            if reply not in self._dead:
                self.feed(event)

        self._schedule(self.now_ms + delay_ms, step)

    def _window(self) -> None:
        middle_ms = self.now_ms - WINDOW_MS // 2
        loud = [
            s.probability
            for s in self._speech
            if s.start_ms <= middle_ms < s.start_ms + s.duration_ms
        ]
        self._schedule(self.now_ms + WINDOW_MS, self._window)
        self.feed(ev.VadScored(max(loud, default=0.02), self.now_ms))

    def _words(self, from_ms: int, to_ms: int) -> str:
        return " ".join(filter(None, (s.until(from_ms, to_ms) for s in self._speech)))

    def _fails(self, name: str) -> bool:
        left = self.fail.get(name, 0)
        self.fail[name] = max(left - 1, 0)
        return left > 0

    def _perform(self, action: act.Action) -> None:
        if type(action).__name__ in self._hung:
            return
        match action:
            case act.Transcribe():
                self._transcribe(action)
            case act.ScoreTurn():
                p = self.finished(self._words(action.start_ms, action.end_ms))
                self._later(self.delays.score, ev.TurnScored(action.job, p))
            case act.Generate():
                self._generate(action)
            case act.Synthesize():
                self._synthesize(action)
            case act.RunTool():
                if self.ours:
                    self._later(0, ev.ToolStarted(action.call.call_id, self.filler))
                result = ev.ToolReturned(action.call.call_id, f"result of {action.call.name}")
                self._later(self.delays.tool, result)
            case act.CancelReply():
                self._dead.add(action.reply)
            case act.Play():
                self._audio_output += 1
                self._sent_ms = action.from_ms
                outlet = self._audio_output
                # Like the session's: never in the middle of the event that asked for it.
                self._schedule(self.now_ms, lambda: self._send(action.reply, outlet))
            case act.Pause() | act.StopPlayout():
                self._audio_output += 1

    def _transcribe(self, action: act.Transcribe) -> None:
        a = action
        if self._fails("Transcribe"):
            self._later(10, ev.JobFailed(a.job, "scripted failure"))
            return
        text = self._words(a.start_ms, a.end_ms)
        self._later(self.delays.transcribe, ev.Transcribed(a.job, text))

    def _generate(self, action: act.Generate) -> None:
        job, reply, delay_ms = action.job, action.reply, self.delays.first_token
        asked = next((i.text for i in reversed(action.history) if i.role == "user"), "")
        words = self.reply(asked).split()
        judged = self.text_end_probability(asked) if action.score_text_end else None
        if judged is not None:
            self._later(self.delays.score, ev.TextEndScored(job, judged), reply)
        fails = self._fails("Generate")
        if fails:
            words = words[: self.fail_after_words]
        for index, word in enumerate(words):
            piece = f"{word} " if fails or index < len(words) - 1 else word
            self._later(delay_ms, ev.ReplyText(job, piece), reply)
            delay_ms += self.delays.token
        if fails:
            self._later(delay_ms, ev.JobFailed(job, "scripted failure"), reply)
            return
        calls = self.calls(action.history)
        for call in calls:
            for piece in filter(None, (call.arguments[:1], call.arguments[1:])):
                part = ev.ReplyToolText(job, call.call_id, call.name, piece)
                self._later(delay_ms, part, reply)
            self._later(delay_ms, ev.ReplyTool(job, call), reply)
        finish = "tool_calls" if calls else "stop"
        self._later(delay_ms, ev.ReplyComplete(job, finish, 20, len(words), 10), reply)

    def _synthesize(self, action: act.Synthesize) -> None:
        job, reply = action.job, action.reply
        if self._fails("Synthesize"):
            self._later(20, ev.JobFailed(job, "scripted failure"), reply)
            return
        length_ms = len(action.text.split()) * _WORD_MS
        self._later(self.delays.speak, ev.SegmentAudio(job, length_ms), reply)
        self._later(self.delays.speak, ev.SegmentComplete(job), reply)

    def _send(self, reply: str, outlet: int) -> None:
        """Audio leaves in real time with a small lead, like the session's."""
        if outlet != self._audio_output or reply in self._dead:
            return
        live = self.view.reply
        made_ms = live.playout.total_ms if live is not None and live.id == reply else 0
        if self._sent_ms < made_ms:
            self._sent_ms = min(self._sent_ms + _SEND_MS, made_ms) if self.paced else made_ms
            self.feed(ev.AudioSent(reply, self._sent_ms))
            if self.reports and self._sent_ms > _LEAD_MS:
                self.feed(ev.Played(reply, self._sent_ms - _LEAD_MS))
        elif self.reports and live is not None and live.id == reply:
            self.feed(ev.Played(reply, made_ms))
        self._schedule(self.now_ms + _SEND_MS, lambda: self._send(reply, outlet))

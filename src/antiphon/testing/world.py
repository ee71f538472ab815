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
from collections.abc import Callable
from dataclasses import dataclass, field

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core import trace
from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor
from antiphon.core.policy import Policy

WINDOW_MS = 32
_WORD_MS = 300
_SEND_MS = 100
_LEAD_MS = 200


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


@dataclass(slots=True)
class World:
    """One simulated call. Change its public fields before `run`."""

    policy: Policy = field(default_factory=Policy)
    delays: Delays = field(default_factory=Delays)
    reply: Callable[[str], str] = lambda words: f"You said: {words}."
    finished: Callable[[str], float] = lambda words: 0.9
    """Words so far -> what the turn detector says."""
    fail: dict[str, int] = field(default_factory=dict)
    """Action name -> how many of them fail before they work again."""
    reports: bool = False
    """The caller's client reports what it has played."""
    now_ms: int = 0
    audio_from_ms: int = 0
    log: list[tuple[int, act.Action]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    _speech: list[Speech] = field(default_factory=list)
    _queue: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _sequence: int = 0
    _sending: str = ""
    _sent_ms: int = 0
    _conversation: Conversation | None = None
    _dead: set[str] = field(default_factory=set)
    _durations: dict[str, int] = field(default_factory=dict)
    _hung: set[str] = field(default_factory=set)

    # -- the script -----------------------------------------------------------------------------

    def speak(self, at_ms: int, text: str, duration_ms: int, probability: float = 0.95) -> None:
        """The caller speaks, on the audio clock."""
        self._speech.append(Speech(at_ms, duration_ms, text, probability))

    def at(self, at_ms: int, event: ev.Event) -> None:
        """Something else happens."""
        self._schedule(at_ms, lambda: self.feed(event))

    def hang(self, action: str) -> None:
        """From now on results of this kind of action never come."""
        self._hung.add(action)

    # -- running --------------------------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        if self._conversation is None:
            self._conversation = Conversation(self.policy)
            self.lines.append(trace.header(self.policy))
        return self._conversation

    def run(self, until_ms: int) -> World:
        """Everything up to `until_ms`, or the end of the call."""
        if not self.lines:
            self.feed(ev.Started())
            self._schedule(self.now_ms + WINDOW_MS, self._window)
        while self.conversation.floor is not Floor.ENDED:
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

    def feed(self, event: ev.Event) -> None:
        out = self.conversation.handle(event, self.now_ms)
        self._record(event, out)

    def _record(self, event: ev.Event | None, out: list[act.Action]) -> None:
        if out or event is not None:
            self.lines.append(trace.line(self.now_ms, event, out))
        for action in out:
            self.log.append((self.now_ms, action))
            self._perform(action)

    # -- results --------------------------------------------------------------------------------

    def actions(self, kind: type) -> list[act.Action]:
        return [a for _, a in self.log if isinstance(a, kind)]

    def when(self, kind: type) -> list[int]:
        return [t for t, a in self.log if isinstance(a, kind)]

    def said(self) -> list[str]:
        """The agent's words that were heard, reply by reply."""
        return [a.heard for _, a in self.log if isinstance(a, act.ReplyEnded)]

    def transcript(self) -> list[tuple[str, str]]:
        return [(i.role, i.text) for i in self.conversation.history.snapshot()]

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
        end_ms = self.now_ms - self.audio_from_ms
        middle = end_ms - WINDOW_MS // 2
        loud = [
            s.probability for s in self._speech if s.start_ms <= middle < s.start_ms + s.duration_ms
        ]
        self._schedule(self.now_ms + WINDOW_MS, self._window)
        self.feed(ev.VadScored(max(loud, default=0.02), end_ms))

    def _words(self, from_ms: int, to_ms: int) -> str:
        return " ".join(filter(None, (s.until(from_ms, to_ms) for s in self._speech)))

    def _fails(self, name: str) -> bool:
        left = self.fail.get(name, 0)
        self.fail[name] = max(left - 1, 0)
        return left > 0

    def _perform(self, action: act.Action) -> None:
        name = type(action).__name__
        if name in self._hung:
            return
        match action:
            case act.Transcribe():
                self._transcribe(action)
            case act.ScoreTurn():
                p = self.finished(self._words(action.start_ms, action.end_ms))
                self._later(self.delays.score, ev.TurnScored(action.turn, action.attempt, p))
            case act.Generate():
                self._generate(action)
            case act.Speak():
                self._speak(action)
            case act.Abandon():
                self._dead.add(action.reply)
            case act.Play():
                self._sending, self._sent_ms = action.reply, action.from_ms
                self._send(action.reply, self.now_ms)
            case act.Pause() | act.Silence():
                self._sending = ""

    def _transcribe(self, action: act.Transcribe) -> None:
        a = action
        if self._fails("Transcribe"):
            self._later(10, ev.TranscriptFailed(a.turn, a.attempt, "scripted failure", a.partial))
            return
        text = self._words(a.start_ms, a.end_ms)
        self._later(self.delays.transcribe, ev.Transcribed(a.turn, a.attempt, text, a.partial))

    def _generate(self, action: act.Generate) -> None:
        if self._fails("Generate"):
            self._later(50, ev.ReplyFailed(action.reply, "scripted failure"), action.reply)
            return
        asked = next((i.text for i in reversed(action.history) if i.role == "user"), "")
        words = self.reply(asked).split()
        for index, word in enumerate(words):
            delay_ms = self.delays.first_token + index * self.delays.token
            piece = word if index == len(words) - 1 else f"{word} "
            self._later(delay_ms, ev.ReplyText(action.reply, piece), action.reply)
        done_ms = self.delays.first_token + len(words) * self.delays.token
        self._later(
            done_ms, ev.ReplyComplete(action.reply, "stop", 20, len(words), 10), action.reply
        )

    def _speak(self, action: act.Speak) -> None:
        if self._fails("Speak"):
            failed = ev.ClauseFailed(action.reply, action.clause, "scripted failure")
            self._later(20, failed, action.reply)
            return
        length_ms = len(action.text.split()) * _WORD_MS
        self._durations[action.reply] = self._durations.get(action.reply, 0) + length_ms
        audio = ev.ClauseAudio(action.reply, action.clause, length_ms)
        self._later(self.delays.speak, audio, action.reply)
        self._later(self.delays.speak, ev.ClauseSpoken(action.reply, action.clause), action.reply)

    def _send(self, reply: str, began_ms: int) -> None:
        """Audio leaves in real time with a small lead, like the session's."""
        if self._sending != reply or reply in self._dead:
            return
        live = self.conversation.speaker.reply
        made_ms = live.ledger.total_ms if live is not None and live.id == reply else 0
        if self._sent_ms < made_ms:
            self._sent_ms = min(self._sent_ms + _SEND_MS, made_ms)
            self.feed(ev.AudioSent(reply, self._sent_ms))
            if self.reports and self._sent_ms > _LEAD_MS:
                self.feed(ev.Played(reply, self._sent_ms - _LEAD_MS))
        self._schedule(self.now_ms + _SEND_MS, lambda: self._send(reply, began_ms))

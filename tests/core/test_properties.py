"""Anything at any time: a Hypothesis machine throws every event, right and stale, at a Conversation.

The rules themselves are `antiphon.testing.rules`: nothing of a cancelled or uncommitted reply is played or shown, at
most one live reply, history never exceeds what was heard, `deadline()` never in the past after `tick`, hang-up final,
no function run twice, every turn and reply that began ends, and never an exception.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.observe import call_trace
from antiphon.testing.rules import CallRules

WINDOW_MS = 32

POLICIES = [
    Policy(),
    Policy(greeting="", client_can_clear=True, client_reports_played=True),
    Policy(greeting="", barge_in="immediate", client_can_clear=True, max_idle_prompts=0),
    Policy(interruptible=False, use_turn_detector=False),
    Policy(greeting="", interruptible=False, overhear=True, plain_silence_ms=200),
    Policy(greeting="", idle_answer=True, idle_prompt_after_ms=500, barge_in="immediate"),
    Policy(greeting="", auto_turns=False, auto_reply=False, idle_prompt_after_ms=0),
    Policy(greeting="", auto_reply=False, reopen_turns=False),
    Policy(greeting="", preemptive_generation_after_ms=0, speak_ahead_ms=0, partial_every_ms=0),
    Policy(greeting="", speak_replies=False, max_turn_ms=2_000, keep_transcript_after_ms=500),
    Policy(greeting="", apology="", goodbye="", idle_prompt="", max_turn_ms=1_500),
]

SAID = [
    "",
    "yes",
    "mm-hm",
    "stop",
    "what time is it",
    "my number is 5 5",
    "I want to go to the",
    "ok",
]
TEXT = ["Hello", " there", ". I am", " fine, thank you", "!", " ", "…", "\n", " Dr. No. 3.5", "🙂"]
ANSWERS = ["Yes.", "It is three o'clock, I think. Shall we go on?", "One. " * 30]
ITEM_IDS = ["c1", "c2", "u1", "a1", "a2", "w1", "t_call1", "o_call1", ""]
CALL_IDS = ["call1", "call2", "call3"]

numbers = st.integers(0, 6)
replies = st.integers(0, 8).map(lambda back: -1 - back)
durations = st.sampled_from([0, 1, 40, 200, 900, 3_000])


class AnyCall(RuleBasedStateMachine):
    @initialize(number=st.integers(0, len(POLICIES) - 1), greet=st.booleans())
    def begin(self, number: int, greet: bool) -> None:
        policy = POLICIES[number]
        self.conversation = Conversation(policy)
        self.rules = CallRules(self.conversation)
        self.now_ms = 0
        self.audio_ms = 0
        self.jobs: dict[type, list[int]] = {}
        self.reply_ids = ["r99"]
        self.items = list(ITEM_IDS)
        self.work: list[act.Action] = []
        self.made_ms: dict[str, int] = {}
        self.lines = [call_trace.header(policy)]
        self.post(ev.Started(greet))

    def post(self, event: ev.Event | None) -> None:
        if event is None:
            out = self.conversation.tick(self.now_ms)
        else:
            out = self.conversation.handle(event, self.now_ms)
        self.lines.append(call_trace.line(self.now_ms, event, out))
        self.rules.check(event, self.now_ms, out)
        for action in out:
            self.notice(action)
            if isinstance(action, act.Transcribe | act.ScoreTurn | act.Generate | act.Synthesize):
                self.work.append(action)
                self.jobs.setdefault(type(action), []).append(action.job)

    def notice(self, action: act.Action) -> None:
        match action:
            case act.Generate(_, reply) | act.ReplyBegan(reply):
                if reply not in self.reply_ids:
                    self.reply_ids.append(reply)
            case act.ItemAdded(item):
                self.items.append(item.id)
        if isinstance(action, act.ReplyBegan):
            self.items.append(action.item)

    def pick_reply(self, back: int) -> str:
        return self.reply_ids[max(back, -len(self.reply_ids))]

    def pick_job(self, kind: type, back: int) -> int:
        """One of the latest jobs of this kind, or one that never was."""
        jobs = self.jobs.get(kind, [])
        return jobs[-min(back, len(jobs))] if jobs else 999

    # -- time and audio -------------------------------------------------------------------------

    @rule(windows=st.integers(1, 40), loud=st.booleans(), live=st.booleans())
    def audio(self, windows: int, loud: bool, live: bool) -> None:
        for _ in range(windows):
            self.audio_ms += WINDOW_MS
            if live:
                self.now_ms += WINDOW_MS
            self.post(ev.VadScored(0.9 if loud else 0.05, self.audio_ms))

    @rule(probability=st.sampled_from([0.4, 0.5, 0.55, 0.6, 1.0, 0.0]))
    def window(self, probability: float) -> None:
        self.audio_ms += WINDOW_MS
        self.now_ms += WINDOW_MS
        self.post(ev.VadScored(probability, self.audio_ms))

    @rule(ms=st.sampled_from([1, 30, 250, 1_000, 4_000, 25_000]), punctual=st.booleans())
    def wait(self, ms: int, punctual: bool) -> None:
        until_ms = self.now_ms + ms
        while punctual:
            due_ms = self.conversation.deadline()
            if due_ms is None or due_ms > until_ms:
                break
            self.now_ms = max(self.now_ms, due_ms)
            self.post(None)
        self.now_ms = until_ms
        self.post(None)

    # -- a call that goes well, so that every state is reached --------------------------------------

    @rule(count=st.integers(1, 4), text=st.sampled_from(SAID), reply=st.sampled_from(ANSWERS))
    def serve(self, count: int, text: str, reply: str) -> None:
        """The models do what they were asked for, in order."""
        for _ in range(count):
            if self.work:
                self.serve_one(self.work.pop(0), text, reply)

    def serve_one(self, action: act.Action, text: str, reply: str) -> None:
        self.now_ms += 20
        match action:
            case act.Transcribe(job):
                self.post(ev.Transcribed(job, text))
            case act.ScoreTurn(job):
                self.post(ev.TurnScored(job, 0.9))
            case act.Generate(job):
                self.post(ev.ReplyText(job, reply))
                self.post(ev.ReplyComplete(job, "stop", 10, 5))
            case act.Synthesize(job, text=words):
                self.post_audio(job, 60 * len(words))
                self.post(ev.SegmentComplete(job))

    def post_audio(self, job: int, ms: int) -> None:
        self.post(ev.SegmentAudio(job, ms))
        live = self.conversation.view.reply
        if live is not None:
            self.made_ms[live.id] = live.playout.total_ms

    @rule(text=st.sampled_from(SAID[1:]), reply=st.sampled_from(ANSWERS))
    def whole_turn(self, text: str, reply: str) -> None:
        """The caller says something and falls silent, and the first sound of the answer is made."""
        self.audio(15, True, True)
        self.audio(4, False, True)
        self.serve(4, text, reply)
        self.audio(8, False, True)
        self.serve(4, text, reply)

    @rule(share=st.sampled_from([0.2, 0.6, 1.0]))
    def send(self, share: float) -> None:
        """The live reply's audio leaves."""
        live = self.conversation.view.reply
        if live is not None and live.audible:
            self.post(ev.AudioSent(live.id, int(share * live.playout.total_ms)))

    @precondition(lambda self: self.conversation.view.floor in (Floor.AGENT, Floor.CLOSING))
    @rule(windows=st.integers(3, 40), text=st.sampled_from(SAID), quiet=st.integers(0, 4))
    def speak_over(self, windows: int, text: str, quiet: int) -> None:
        """The caller speaks while the agent does."""
        self.audio(windows, True, True)
        self.serve(2, text, "Fine.")
        self.audio(quiet, False, True)

    # -- models ---------------------------------------------------------------------------------

    @precondition(lambda self: act.Transcribe in self.jobs)
    @rule(back=st.integers(1, 4), text=st.sampled_from(SAID), fails=st.booleans())
    def transcribed(self, back: int, text: str, fails: bool) -> None:
        job = self.pick_job(act.Transcribe, back)
        if fails and back % 2:
            self.post(ev.JobFailed(job, "no model"))
        else:
            self.post(ev.Transcribed(job, text))

    @rule(job=numbers, text=st.sampled_from(SAID))
    def result_of_any_job(self, job: int, text: str) -> None:
        """Whatever that job was for, if there was one."""
        self.post(ev.Transcribed(job, text))
        self.post(ev.TextEndScored(job, 0.5))
        self.post(ev.SegmentComplete(job))

    @rule(back=st.integers(1, 3), probability=st.sampled_from([0.0, 0.2, 0.4, 0.9]))
    def scored(self, back: int, probability: float) -> None:
        self.post(ev.TurnScored(self.pick_job(act.ScoreTurn, back), probability))

    @rule(back=numbers, pieces=st.lists(st.sampled_from(TEXT), min_size=1, max_size=6))
    def reply_text(self, back: int, pieces: list[str]) -> None:
        for piece in pieces:
            self.post(ev.ReplyText(self.pick_job(act.Generate, back + 1), piece))

    @rule(back=numbers, probability=st.sampled_from([0.0, 0.01, 0.9]))
    def text_end_scored(self, back: int, probability: float) -> None:
        self.post(ev.TextEndScored(self.pick_job(act.Generate, back + 1), probability))

    @rule(back=numbers, finish=st.sampled_from(["stop", "length"]))
    def reply_complete(self, back: int, finish: str) -> None:
        self.post(ev.ReplyComplete(self.pick_job(act.Generate, back + 1), finish))

    @rule(back=numbers, call=st.sampled_from(CALL_IDS))
    def reply_tool(self, back: int, call: str) -> None:
        job = self.pick_job(act.Generate, back + 1)
        self.post(ev.ReplyTool(job, ToolRequest(call, "f", "{}")))

    @rule(back=numbers, call=st.sampled_from(CALL_IDS), text=st.sampled_from(["", "{", "}"]))
    def reply_tool_text(self, back: int, call: str, text: str) -> None:
        self.post(ev.ReplyToolText(self.pick_job(act.Generate, back + 1), call, "f", text))

    @rule(call=st.sampled_from(CALL_IDS), filler=st.sampled_from(["", "I am looking."]))
    def tool_started(self, call: str, filler: str) -> None:
        self.post(ev.ToolStarted(call, filler))

    @rule(call=st.sampled_from(CALL_IDS), output=st.sampled_from(["", "42"]))
    def tool_returned(self, call: str, output: str) -> None:
        self.post(ev.ToolReturned(call, output))

    @rule(back=numbers)
    def reply_failed(self, back: int) -> None:
        self.post(ev.JobFailed(self.pick_job(act.Generate, back + 1), "broken"))

    @precondition(lambda self: act.Synthesize in self.jobs)
    @rule(back=st.integers(1, 3), ms=durations, done=st.booleans())
    def segment_audio(self, back: int, ms: int, done: bool) -> None:
        job = self.pick_job(act.Synthesize, back)
        self.post_audio(job, ms)
        if done:
            self.post(ev.SegmentComplete(job))

    @precondition(lambda self: act.Synthesize in self.jobs)
    @rule(back=st.integers(1, 3))
    def segment_failed(self, back: int) -> None:
        self.post(ev.JobFailed(self.pick_job(act.Synthesize, back), "no voice"))

    @rule(back=replies, share=st.sampled_from([0.1, 0.5, 1.0]), ms=st.sampled_from([0, 30, 400]))
    def audio_sent(self, back: int, share: float, ms: int) -> None:
        reply = self.pick_reply(back)
        self.now_ms += ms
        self.post(ev.AudioSent(reply, int(share * self.made_ms.get(reply, 0))))

    @rule(back=replies, ms=st.sampled_from([-50, 0, 100, 700, 2_000, 10**9]))
    def played(self, back: int, ms: int) -> None:
        self.post(ev.Played(self.pick_reply(back), ms))

    # -- clients --------------------------------------------------------------------------------

    @rule(text=st.sampled_from(["hi", " "]), reply=st.booleans())
    def typed(self, text: str, reply: bool) -> None:
        self.post(ev.UserText(text, reply))

    @rule(ahead=st.sampled_from([0, 20]), reply=st.booleans())
    def commit(self, ahead: int, reply: bool) -> None:
        self.post(ev.CommitInput(self.audio_ms + ahead, reply))

    @rule()
    def clear(self) -> None:
        self.post(ev.ClearInput(self.audio_ms))

    @rule(speak=st.sampled_from([None, True, False]))
    def request(self, speak: bool | None) -> None:
        self.post(ev.RequestReply({"n": 1}, speak))

    @rule(text=st.sampled_from(["Hold the line, please.", "", "…"]))
    def say(self, text: str) -> None:
        self.post(ev.Say(text))

    @rule(back=replies, named=st.booleans())
    def cancel(self, back: int, named: bool) -> None:
        self.post(ev.RequestCancel(self.pick_reply(back) if named else ""))

    @rule(
        item=st.sampled_from(ITEM_IDS),
        role=st.sampled_from(["user", "assistant", "tool_result"]),
        after=st.sampled_from([None, "root", "c1", "nowhere"]),
        call=st.sampled_from(["", *CALL_IDS]),
    )
    def add_item(self, item: str, role: str, after: str | None, call: str) -> None:
        self.post(ev.AddItem(Item(item, role, "text", call_id=call), after))

    @rule(back=st.integers(1, 6))
    def delete_item(self, back: int) -> None:
        self.post(ev.DeleteItem(self.items[-min(back, len(self.items))]))

    @rule(back=st.integers(1, 6), ms=st.sampled_from([-5, 0, 300, 1_500, 10**9]))
    def truncate(self, back: int, ms: int) -> None:
        self.post(ev.TruncateItem(self.items[-min(back, len(self.items))], ms))

    @precondition(lambda self: self.now_ms > 20_000)
    @rule(number=st.integers(0, len(POLICIES) - 1))
    def configure(self, number: int) -> None:
        self.post(ev.Configure(POLICIES[number]))

    @precondition(lambda self: self.conversation.view.floor is not Floor.OPEN)
    @rule(said=st.booleans(), unless=st.booleans())
    def finish(self, said: bool, unless: bool) -> None:
        self.post(ev.Finish("done", said, "Bye bye." if said else "", unless))

    @rule()
    def start_again(self) -> None:
        self.post(ev.Started())

    @precondition(lambda self: self.conversation.view.floor in (Floor.OPEN, Floor.CLOSING))
    @rule(ms=st.sampled_from([7_000, 22_000]))
    def idle(self, ms: int) -> None:
        self.wait(ms, True)

    @precondition(lambda self: self.conversation.view.floor is Floor.OPEN)
    @rule(goes_on=st.booleans())
    def nobody_answers(self, goes_on: bool) -> None:
        """Up to the goodbye, and sometimes the caller is back while it is said."""
        for _ in range(8):
            self.serve(4, "", "")
            self.send(1.0)
            if self.conversation.view.floor in (Floor.CLOSING, Floor.ENDED):
                break
            self.wait(7_000, True)
        if goes_on and self.conversation.view.floor is Floor.CLOSING:
            self.speak_over(5, "hello", 3)

    def teardown(self) -> None:
        if not hasattr(self, "conversation"):
            return
        self.post(ev.HungUp())
        assert self.conversation.view.floor is Floor.ENDED
        for event in (
            ev.UserText("hello?"),
            ev.VadScored(0.9, self.audio_ms + 32),
            ev.Started(),
            None,
        ):
            self.post(event)  # the rules say that nothing may follow
        assert self.conversation.deadline() is None
        assert call_trace.replay(self.lines) is None


AnyCall.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
TestAnyCall = AnyCall.TestCase

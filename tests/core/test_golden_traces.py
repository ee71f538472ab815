"""Calls on file: each still goes as it went, and each still shows what it is there to show.

The second half matters when behaviour changes on purpose and the files are written anew (`make_traces.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antiphon.observe import call_trace
from antiphon.testing.rules import check_trace

FOLDER = Path(__file__).parents[1] / "traces"

NAMES = """clean-turn pause-in-mid-sentence barge-in mm-hm late-transcript llm-failure hang-up-while-speaking
preemptive-reply-thrown-away greeting-interrupted idle-goodbye manual-turn tool-call tool-slow""".split()

SHIPS = "The sea is deep and cold, and nobody knows how many ships lie there."


def lines(name: str) -> list[str]:
    return (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


class Told:
    """What the conversation did in a trace, as it stands in the file."""

    def __init__(self, name: str) -> None:
        _, steps = call_trace.read(lines(name))
        self.actions = [(step.now_ms, action) for step in steps for action in step.actions]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [action for _, action in self.actions if action["type"] == kind]

    def times(self, kind: str) -> list[int]:
        return [now_ms for now_ms, action in self.actions if action["type"] == kind]

    def heard(self) -> list[str]:
        return [action.get("heard", "") for action in self.all("ReplyEnded")]

    def user(self) -> list[str]:
        return [a["item"]["text"] for a in self.all("ItemAdded") if a["item"]["role"] == "user"]

    def floors(self) -> list[str]:
        return [action["floor"] for action in self.all("FloorChanged")]


def test_every_trace_on_file_is_looked_at() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.jsonl")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_goes_as_it_went(name: str) -> None:
    difference = call_trace.replay(lines(name))
    assert difference is None, (
        f"{name}: {difference}\nIf this is meant: python tests/core/make_traces.py"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_obeys_the_rules(name: str) -> None:
    check_trace(lines(name))


def test_clean_turn() -> None:
    told = Told("clean-turn")
    assert told.heard() == ["Hello.", "You said: what time is it."]
    assert told.user() == ["what time is it"]
    assert told.floors() == [
        *("thinking", "agent", "open"),
        *("caller", "deciding", "thinking", "agent", "open"),
    ]
    # The answer was prepared before the turn was over, and audible within 400 ms of the last word.
    assert told.all("Generate")[0]["preemptive"] is True
    assert told.times("Generate")[0] < told.times("SpeechEnded")[0]
    assert told.times("Play")[1] < 3_200 + 400


def test_pause_in_mid_sentence() -> None:
    told = Told("pause-in-mid-sentence")
    assert told.user() == ["I want to go to the sea"]
    guess, answer = (action["reply"] for action in told.all("Generate"))
    assert [action["reply"] for action in told.all("ReplyBegan")] == [answer]
    for kind in ("ReplyWords", "Play", "ReplyEnded", "ReplyCalls"):
        assert guess not in [action["reply"] for action in told.all(kind)]
    assert told.all("TurnRecorded")[0]["record"]["preemptive_generations"] == 2
    assert len(told.all("SpeechBegan")) == len(told.all("SpeechEnded")) == 1


def test_barge_in() -> None:
    told = Told("barge-in")
    cut, answer = told.heard()
    assert 0 < len(cut) < len(SHIPS)
    assert SHIPS.startswith(cut)
    assert answer == "You said: no wait what about the sky."
    assert told.times("Pause")[0] < 3_900 + 150
    assert told.times("Pause")[0] < told.times("StopPlayout")[0] < 3_900 + 700
    # The language model is told what was heard, not what was made.
    history = told.all("Generate")[-1]["history"]
    assert [item["text"] for item in history if item["role"] == "assistant"] == [cut]


def test_mm_hm() -> None:
    told = Told("mm-hm")
    assert told.heard() == [SHIPS]
    assert told.user() == ["tell me about the sea"]
    assert len(told.all("SpeechDropped")) == 1
    assert told.all("StopPlayout") == []
    # It went on from the beginning of the word that was cut off.
    paused_ms, resumed_ms = told.times("Pause")[0], told.times("Play")[1]
    assert resumed_ms - paused_ms < 800
    heard_by_then_ms = paused_ms - told.times("Play")[0]
    assert heard_by_then_ms - 450 < told.all("Play")[1]["from_ms"] <= heard_by_then_ms


def test_late_transcript() -> None:
    told = Told("late-transcript")
    # A transcript that comes 2.6 s after it was asked for is waited for, and a second one changes nothing.
    assert told.user() == ["what time is it"]
    assert told.heard() == ["You said: what time is it."]
    assert len(told.all("ReplyBegan")) == 1
    assert told.all("Fault") == []
    assert told.times("SpeechEnded")[0] > 1_700 + 2_600


def test_llm_failure() -> None:
    told = Told("llm-failure")
    assert [action["status"] for action in told.all("ReplyEnded")] == [
        "failed",
        "completed",
        "completed",
    ]
    assert told.heard()[1].startswith("Sorry, something went wrong")
    assert told.heard()[2] == "You said: and in Oslo."
    # One fault, not two: the guess that failed first is nobody's business.
    assert [action["code"] for action in told.all("Fault")] == ["reply_failed"]


def test_hang_up_while_speaking() -> None:
    told = Told("hang-up-while-speaking")
    (heard,) = told.heard()
    assert 0 < len(heard) < len(SHIPS)
    assert SHIPS.startswith(heard)
    assert told.all("ReplyEnded")[0]["status"] == "cancelled"
    assert [action["type"] for _, action in told.actions][-1] == "Hangup"
    assert told.times("Hangup") == [4_000]
    assert told.floors()[-1] == "ended"


def test_preemptive_reply_thrown_away() -> None:
    told = Told("preemptive-reply-thrown-away")
    # It was made, with a function call in it, and nothing of it is left: no word, no sound, no function, no item.
    assert len(told.all("Generate")) == 1
    assert len(told.all("CancelReply")) == 1
    for kind in ("ReplyBegan", "ReplyWords", "ReplyCalls", "RunTool", "Play", "ItemAdded"):
        assert told.all(kind) == []
    assert len(told.all("SpeechDropped")) == 1
    assert told.floors() == ["caller", "deciding", "caller", "open"]


def test_greeting_interrupted() -> None:
    told = Told("greeting-interrupted")
    greeting, answer = told.heard()
    assert 3 <= len(greeting.split()) <= 6  # of fourteen, after about 1.5 s
    (cut,) = told.all("ItemTruncated")
    assert f"{greeting} {cut['unheard']}" == (
        "Good morning, this is the harbour office. How can I help you?"
    )
    assert answer == "You said: what time is it."


def test_idle_goodbye() -> None:
    told = Told("idle-goodbye")
    assert told.heard() == ["Hello.", "Are you still there?", "I'll let you go now. Goodbye!"]
    ended = told.times("ReplyEnded")
    assert told.times("ReplyBegan")[1] - ended[0] == 2_000
    assert told.times("ReplyBegan")[2] - ended[1] == 2_000
    assert told.times("Hangup") == [ended[2]]


def test_manual_turn() -> None:
    told = Told("manual-turn")
    assert told.user() == ["what time is it"]
    assert told.times("SpeechEnded")[0] < 2_000  # the commit, not silence, ended the turn
    (generate,) = told.all("Generate")
    assert generate["options"] == {"instructions": "be brief"}
    assert told.times("Generate") == [2_000]
    (cut,) = told.all("ItemTruncated")
    assert (cut["heard_ms"], cut["heard"], cut["unheard"]) == (700, "You said:", "what time is it.")


def test_tool_call() -> None:
    told = Told("tool-call")
    assert len(told.all("RunTool")) == 1
    assert told.times("RunTool")[0] >= told.times("ReplyBegan")[0]
    assert told.heard() == ["Let me have a look."] * 2
    roles = [item["role"] for item in told.all("Generate")[-1]["history"]]
    assert roles == ["user", "assistant", "tool_call", "tool_result"]


def test_tool_slow() -> None:
    told = Told("tool-slow")
    assert told.heard() == ["Let me have a look.", "One moment, please.", "Let me have a look."]
    assert len(told.all("RunTool")) == 1
    # What bridges the wait is no answer: the model that is given the result does not see it.
    last = told.all("Generate")[-1]["history"]
    assert [item["role"] for item in last] == ["user", "assistant", "tool_call", "tool_result"]

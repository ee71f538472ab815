"""The analysis after a conversation: always of the documented shape, whatever the model answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support import broken_registry, loaded, model_set, run

from antiphon.call.learner_analysis import (
    EMPTY,
    MAX_ITEMS,
    MAX_TRANSCRIPT_CHARS,
    SCHEMA,
    LearnerAnalysis,
    Mistake,
    analyse,
    parse,
    transcript,
)
from antiphon.core.history import Item
from antiphon.models.model_set import FallbackConfig
from antiphon.models.ports import Kind

SAID = "yesterday I goed to the market and buyed fish"
HISTORY = (
    Item("a1", "assistant", "Hello! What did you do?"),
    Item("u1", "user", SAID),
    Item("a2", "assistant", "You went to the market."),
)
GOOD = {
    "summary": "You told a story.",
    "mistakes": [{"said": "I goed", "correction": "I went", "why": "irregular verb"}],
    "vocabulary": ["market"],
    "estimated_level": "Beginner",
    "suggestions": ["Learn the past tense."],
}
FOUND = LearnerAnalysis(
    "ok",
    "You told a story.",
    (Mistake("I goed", "I went", "irregular verb"),),
    ("market",),
    "beginner",
    ("Learn the past tense.",),
)


async def ask(
    *replies: str, history: tuple[Item, ...] = HISTORY, limit_s: float = 10, **llm: Any
) -> tuple[LearnerAnalysis, int]:
    """-> what came of it, and how often the model was asked. The n-th reply is for the n-th message of a user."""
    async with loaded(model_set(llm={"replies": list(replies), **llm})) as models:
        found = await analyse(models, history, call_id="call", limit_s=limit_s)
        return found, len(models.backend(Kind.LLM).requests)


def test_a_good_answer() -> None:
    assert run(ask(json.dumps(GOOD))) == (FOUND, 1)


def test_the_shape_is_plain_json_and_the_documented_one() -> None:
    data = json.loads(json.dumps(FOUND.data()))
    assert set(data) == {"status", *SCHEMA["properties"]}
    assert set(EMPTY.data()) == set(data)
    assert data["mistakes"] == GOOD["mistakes"]


def test_rubbish_is_asked_again_once() -> None:
    assert run(ask("Sure! I think you did well.", json.dumps(GOOD))) == (FOUND, 2)


def test_rubbish_twice_is_said_honestly() -> None:
    found, asked = run(ask("No.", "Still no {"))
    assert asked == 2
    assert found.status == "unavailable"
    assert "made no sense" in found.summary
    assert found.estimated_level == "unknown"


def test_nothing_said_needs_no_model() -> None:
    for history in ((), HISTORY[:1], (Item("u1", "user", " ... "),)):
        assert run(ask("x", history=history)) == (EMPTY, 0)


def test_a_model_that_fails() -> None:
    async def scenario() -> LearnerAnalysis:
        broken = FallbackConfig(Kind.LLM, ("broken",), {})
        async with loaded(model_set(broken, registry=broken_registry())) as models:
            return await analyse(models, HISTORY, call_id="call", limit_s=10)

    found = run(scenario())
    assert found.status == "unavailable"
    assert "the language model failed" in found.summary


def test_a_model_that_is_too_slow() -> None:
    found, _ = run(ask(json.dumps(GOOD), limit_s=0.05, delay_ms=400))
    assert found.status == "unavailable"
    assert "longer than 0.05 seconds" in found.summary


def test_being_cancelled_is_no_answer() -> None:
    async def scenario() -> None:
        async with loaded(model_set(llm={"delay_ms": 400})) as models:
            task = asyncio.create_task(analyse(models, HISTORY, call_id="call", limit_s=10))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(GOOD),
        f"Here you are:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nHave a nice day!",
        "{braces} first " + json.dumps(GOOD),
        json.dumps(GOOD)[:-1],
        json.dumps({**GOOD, "suggestions": [{"tip": "Learn the past tense."}, None, ""]}),
        json.dumps({**GOOD, "vocabulary": "market, market", "extra": 1}),
        json.dumps({**GOOD, "mistakes": [*GOOD["mistakes"], "no", {}, {"said": 1}]}),
    ],
)
def test_answers_that_can_be_used(answer: str) -> None:
    assert parse(answer, SAID) == FOUND


@pytest.mark.parametrize(
    "answer", ["", "null", "[]", "{}", '{"summary": 3', "{" * 5_000, '{"a": {"b": 1}}', "[" * 9_000]
)
def test_answers_that_cannot(answer: str) -> None:
    assert parse(answer, SAID) is None


def test_invented_mistakes_and_levels_are_left_out() -> None:
    answer = {
        "summary": "s",
        "estimated_level": "C2",
        "mistakes": [
            {"said": "He don't like it", "correction": "He doesn't like it", "why": ""},
            {"said": "buyed fish", "correction": "buyed fish", "why": ""},
            {"said": "buyed fish", "correction": "bought fish", "why": ""},
        ],
    }
    found = parse(json.dumps(answer), SAID)
    assert found is not None
    assert found.estimated_level == "unknown"
    assert found.mistakes == (Mistake("buyed fish", "bought fish"),)


def test_an_answer_is_bounded() -> None:
    long = {**GOOD, "summary": "x" * 9_000, "vocabulary": [str(n) for n in range(99)]}
    found = parse(json.dumps(long), SAID)
    assert found is not None
    assert len(found.summary) == 400
    assert len(found.vocabulary) == MAX_ITEMS


def test_a_long_conversation_is_cut_at_its_beginning() -> None:
    items = [Item(f"u{n}", "user", f"sentence number {n}") for n in range(2_000)]
    text = transcript(items)
    assert len(text) <= MAX_TRANSCRIPT_CHARS + 4
    assert text.startswith("...\nLearner: sentence")
    assert text.endswith("number 1999")
    assert (
        transcript(HISTORY)
        == f"Agent: {HISTORY[0].text}\nLearner: {SAID}\nAgent: {HISTORY[2].text}"
    )

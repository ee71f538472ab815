"""A question in a recording, an answer in another: what `run`, `process_audio` and the HTTP route share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.call.support import POLICY
from tests.support import STORY, broken_registry, loaded, model_set, nothing_left, run, say

from antiphon.call.file_turn import ANSWER_RATE_HZ, FileAnswer, answer_file
from antiphon.call.model_tasks import Agent
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, AudioError, ModelError
from antiphon.models.model_set import FallbackConfig, ModelSet
from antiphon.models.ports import Kind, Pcm16


def ask(pcm: Pcm16, models: ModelSet | None = None, policy: Policy = POLICY) -> FileAnswer:
    async def main() -> Any:
        async with nothing_left(), loaded(models) as ready:
            return await answer_file(ready, pcm, policy, Agent())

    found = run(main())
    assert isinstance(found, FileAnswer)
    return found


def test_question_and_answer() -> None:
    found = ask(say(440, silence_ms=300))
    assert (found.transcript, found.reply) == ("what time is it", "It is noon.")
    assert found.rate_hz == ANSWER_RATE_HZ
    assert len(found.pcm) == 3 * ANSWER_RATE_HZ // 10
    assert set(found.timings_ms) == {
        "stt",
        "llm_first_token",
        "llm_total",
        "tts_first_audio",
        "tts_total",
        "total",
    }
    assert all(ms >= 0 for ms in found.timings_ms.values())
    assert found.timings_ms["total"] == found.total_ms > 0


def test_a_long_answer_is_whole() -> None:
    found = ask(say(550), policy=replace(POLICY, speak_ahead_ms=200))
    assert found.reply == STORY
    assert len(found.pcm) == len(STORY.split()) * ANSWER_RATE_HZ // 10


def test_a_question_of_a_minute_with_pauses_is_one_question() -> None:
    parts = [say(hz, 800, silence_ms=9_000) for hz in (440, 660, 440, 660, 550)]
    found = ask(np.concatenate(parts))
    expected = "what time is it stop please what time is it stop please tell me a story"
    assert found.transcript == expected


def test_no_silence_around_the_words() -> None:
    assert ask(say(440, 333)).transcript == "what time is it"


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [
        (np.zeros(1, np.int16), "nobody speaks"),
        (np.zeros(0, np.int16), "nobody speaks"),
        (np.zeros(64_000, np.int16), "nobody speaks"),
        (say(440, 40), "nobody speaks"),
        (say(3_000, 600), "no words were understood"),
    ],
    ids=["one-sample", "none", "silence", "click", "no-words"],
)
def test_nothing_to_answer(pcm: Pcm16, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        ask(pcm)


@pytest.mark.parametrize("kind", [Kind.VAD, Kind.STT, Kind.LLM, Kind.TTS])
def test_a_failing_model_is_named(kind: Kind) -> None:
    models = model_set(FallbackConfig(kind, ("broken",)), registry=broken_registry())
    reason = "voice activity detection failed" if kind is Kind.VAD else "told to fail"
    with pytest.raises(ModelError, match=reason) as caught:
        ask(say(440), models)
    assert "\n" not in str(caught.value)


def test_no_answer_is_an_error() -> None:
    with pytest.raises(AntiphonError, match="returned nothing"):
        ask(say(440), model_set(llm={"rules": {"time": " "}}))

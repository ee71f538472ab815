"""The asserts that users write: each holds when it should, and says why when it does not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.client.phone.fake_agent import fake_agent
from tests.support import run, say

from antiphon.audio.encoding import encode_file
from antiphon.audio.g711 import decode_ulaw, encode_ulaw
from antiphon.audio.resample import resample
from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.piper import Piper
from antiphon.testing.phone_calls import (
    HeardAnswer,
    assert_says_something_like,
    likeness,
    phone_call,
    spoken,
    transcriber,
)


def test_a_conversation_with_asserts(tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(encode_file(say(440, 300), 16_000, "wav"))

    async def scenario() -> None:
        async with (
            fake_agent(greeting_ms=200, answer_ms=1_500) as agent,
            phone_call(agent.ws) as call,
        ):
            assert (await call.greeting(quiet_ms=200)).finished
            with pytest.raises(AssertionError, match="nothing was said"):
                call.assert_answered_within(100)
            await call.say(path)
            await call.agent_speaks(for_s=0.3)
            call.assert_answered_within(5_000)
            with pytest.raises(AssertionError, match="not speaking when"):
                call.assert_stopped_within(5_000)
            with pytest.raises(AssertionError, match=r"was answered after \d+ ms, not 1"):
                call.assert_answered_within(1)
            agent.behaviour.answer_ms = 400
            await call.say(spoken("stop", say(500, 300), 16_000))
            call.assert_stopped_within(5_000)
            with pytest.raises(AssertionError, match="spoke on for"):
                call.assert_stopped_within(1)
            answer = await call.answer(quiet_ms=200)
            assert answer.finished
            assert answer.voice_to_voice_ms is not None
            assert np.abs(answer.pcm.astype(np.int32)).max() > 1_000
            call.press("1")
            assert len(call.figures()) == 2

    run(scenario())


def test_an_agent_that_says_nothing() -> None:
    async def scenario() -> None:
        async with fake_agent(answer_ms=0) as agent, phone_call(agent.ws) as call:
            await call.say(spoken("q", say(440, 300), 16_000))
            with pytest.raises(AssertionError, match="the agent said nothing within"):
                await call.agent_speaks(limit_s=0.2)
            answer = await call.answer(limit_s=0.2)
            assert (len(answer.pcm), answer.voice_to_voice_ms) == (0, None)
            with pytest.raises(AssertionError, match="'q' was not answered"):
                call.assert_answered_within(1_000)
            with pytest.raises(AssertionError, match="said nothing, not something like"):
                await assert_says_something_like(answer, "noon", lambda _: "")

    run(scenario())


def test_what_was_said_is_compared_by_words() -> None:
    assert likeness("Well, it's NOON already!", "it's noon") == 1
    assert likeness("the colour is gray", "the color is grey") == 1
    assert likeness("noon", "it is noon noon") == 0.25
    assert likeness("", "noon") == 0
    heard: list[Pcm16] = []

    async def transcribe(pcm: Pcm16) -> str:
        heard.append(pcm)
        return "It is noon."

    answer = HeardAnswer(say(440, 1_000, rate_hz=8_000), 8_000, 300.0, True)

    async def scenario() -> None:
        await assert_says_something_like(answer, "it's noon now, is it", transcribe, at_least=0.5)
        with pytest.raises(AssertionError, match=re.escape("33% of the words of 'is good bye'")):
            await assert_says_something_like(answer, "is good bye", transcribe)

    run(scenario())
    assert len(heard[0]) == 16_000, "speech to text hears 16 kHz"


def test_a_back_end_as_the_ear() -> None:
    class NoWeights:
        def files(self, name: str) -> dict[str, Path]:
            raise AssertionError

    answer = HeardAnswer(say(440, 600, rate_hz=8_000), 8_000, 300.0, True)

    async def scenario() -> None:
        silent = pytest.raises(AssertionError, match="the agent said")
        with transcriber("scripted", NoWeights()) as transcribe, silent:
            await assert_says_something_like(answer, "zebra", transcribe)

    run(scenario())


@pytest.mark.weights
def test_the_embedded_ear_understands_the_telephone() -> None:
    voice = Piper(WeightStore())
    voice.load()
    words = "The library opens at nine in the morning."
    wide = np.concatenate(list(voice.synthesize(SpeechRequest(words))))
    voice.close()
    narrow = resample(wide, voice.sample_rate_hz, 8_000)
    answer = HeardAnswer(decode_ulaw(encode_ulaw(narrow)), 8_000, 300.0, True)

    async def scenario() -> None:
        with transcriber("moonshine") as transcribe:
            await assert_says_something_like(answer, words, transcribe, at_least=0.8)

    run(scenario())

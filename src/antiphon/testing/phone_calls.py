"""Telephone calls in users' own tests: call an agent as Twilio would, and assert what the caller heard.

    async with phone_call("ws://localhost:8000") as call:
        await call.say("what-time-is-it.wav")
        answer = await call.answer()
        call.assert_answered_within(900)
        await call.say("tell-me-a-story.wav")
        await call.agent_speaks(for_s=1.5)
        await call.say("stop-please.wav")
        call.assert_stopped_within(350)
        with transcriber("moonshine") as transcribe:
            await assert_says_something_like(answer, "it is noon", transcribe)

Everything is measured from the audio.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from antiphon.audio.framing import Pcm16
from antiphon.audio.resample import resample
from antiphon.client.phone.caller import Number, PhoneCall, number_for
from antiphon.client.phone.caller_recording import CallerRecording
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import FRAME_BYTES, RATE_HZ, Clip, load_clip, make_clip
from antiphon.client.phone.impairments import Impairments
from antiphon.client.phone.measure import TurnFigures, measure
from antiphon.errors import ProtocolError
from antiphon.models.ports import STT_RATE_HZ, Kind, SpeechToText, Transcript, WeightSource
from antiphon.models.registry import shared_registry

Transcribe = Callable[[Pcm16], str | Awaitable[str]]
"""16 kHz samples -> what is said in them."""

_SAME_WORD = 0.75
"""Likeness of two spellings that are taken for one word: speech to text writes "colour" and "color"."""


@dataclass(frozen=True, slots=True)
class HeardAnswer:
    """What the agent was heard to say."""

    pcm: Pcm16
    """As received over the telephone, shape [samples]; empty where it said nothing."""
    rate_hz: int
    voice_to_voice_ms: float | None
    """End of the caller's speech to the first audible sample; None without an answer, or with one begun too early."""
    finished: bool
    """It fell silent within the limit."""


class CallUnderTest:
    """A call that is on. Made by `phone_call`."""

    def __init__(self, call: PhoneCall) -> None:
        self.phone = call
        """For what is not offered here."""

    async def say(self, speech: str | Path | Clip) -> None:
        """Speak in real time, over the agent if it is speaking. Raises AudioError, ProtocolError when it hung up."""
        clip = speech
        if not isinstance(clip, Clip):
            clip = await asyncio.to_thread(load_clip, Path(clip))
        await self.phone.say(clip)

    def press(self, digits: str) -> None:
        """Keys of the telephone. Raises ProtocolError for what is not one."""
        self.phone.press(digits)

    async def agent_speaks(self, for_s: float = 0.0, *, limit_s: float = 30.0) -> None:
        """Wait until the agent speaks, and then for so long. Raises AssertionError when it does not."""
        begun = await self.phone.agent_speaks(limit_s, since_step=self._since_step())
        assert begun is not None, f"the agent said nothing within {limit_s:g} s"
        if for_s > 0:
            await self.phone.wait(for_s)

    async def answer(self, *, quiet_ms: int = 1_000, limit_s: float = 30.0) -> HeardAnswer:
        """Hear what the agent says since the caller's last speech, until it was silent for `quiet_ms`."""
        begun = await self.phone.agent_speaks(limit_s, since_step=self._since_step())
        if begun is None:
            return HeardAnswer(self.recording().agent[:0], RATE_HZ, None, False)
        finished = await self.phone.agent_finished(quiet_ms, limit_s)
        heard = self.recording().agent[begun * FRAME_BYTES :]
        spoken = self.figures()[-1].voice_to_voice_ms if self.phone.asked else None
        return HeardAnswer(heard, RATE_HZ, spoken, finished)

    async def greeting(self, *, quiet_ms: int = 1_000, limit_s: float = 5.0) -> HeardAnswer:
        """What the agent says before it was asked anything."""
        return await self.answer(quiet_ms=quiet_ms, limit_s=limit_s)

    def _since_step(self) -> int:
        asked = self.phone.asked
        return asked[-1].speech_end // FRAME_BYTES if asked else 0

    def recording(self) -> CallerRecording:
        """Both sides so far: caller and agent, on one clock."""
        return self.phone.recording()

    def figures(self) -> list[TurnFigures]:
        """One per thing said so far, measured from the recording."""
        return measure(self.recording(), self.phone.asked)

    def _last(self) -> TurnFigures:
        figures = self.figures()
        assert figures, "nothing was said in this call yet"
        return figures[-1]

    def assert_answered_within(self, limit_ms: float) -> None:
        """Of the last thing said: from its last audible sample to the agent's first."""
        turn = self._last()
        assert turn.answered, f"{turn.question!r} was not answered"
        assert not turn.talked_over, f"the agent spoke before {turn.question!r} was said to its end"
        assert turn.voice_to_voice_ms is not None
        assert turn.voice_to_voice_ms <= limit_ms, (
            f"{turn.question!r} was answered after {turn.voice_to_voice_ms:.0f} ms, not {limit_ms:g}"
        )

    def assert_stopped_within(self, limit_ms: float) -> None:
        """Of the last thing said, an interruption: from its first audible sample to the agent's last."""
        turn = self._last()
        took_ms = turn.barge_in_to_silence_ms
        assert took_ms is not None, f"the agent was not speaking when {turn.question!r} began"
        assert took_ms <= limit_ms, f"the agent spoke on for {took_ms:.0f} ms, not {limit_ms:g}"


@asynccontextmanager
async def phone_call(
    url: str | Number,
    *more_urls: str,
    auth_token: str = "",
    public_url: str = "",
    parameters: dict[str, str] | None = None,
    impairments: Impairments | None = None,
) -> AsyncIterator[CallUnderTest]:
    """Call an agent: `ws://host:port`, or `http://host:port` for its webhook, or both.

    Hangs up at the end. Raises ConfigError for what is no address, ProtocolError when there is no call to be had.
    """
    number = url
    if not isinstance(number, Number):
        number = number_for(
            [cast(str, url), *more_urls],
            line=PhoneNumbers(auth_token=auth_token, public_url=public_url),
            parameters=parameters or {},
            impairments=impairments or Impairments(),
        )
    async with PhoneCall(number) as call:
        yield CallUnderTest(call)


def spoken(name: str, pcm: Pcm16, rate_hz: int) -> Clip:
    """Samples, from a text to speech perhaps, as something to say. Raises AudioError where nothing can be heard."""
    return make_clip(name, pcm, rate_hz)


@contextmanager
def transcriber(
    model: str = "moonshine", weights: WeightSource | None = None
) -> Iterator[Transcribe]:
    """A back end of ours as the ear of a test; loaded on entry, freed at the end. Raises ModelError, ConfigError.

    For back ends that run here: those that call a service are coroutines from end to end; pass a function of your own.
    """
    if weights is None:
        from antiphon.models.store import WeightStore

        weights = WeightStore()
    stt = cast(SpeechToText, shared_registry().create(Kind.STT, model, weights=weights))
    stt.load()

    async def transcribe(pcm: Pcm16) -> str:
        found = await asyncio.to_thread(stt.transcribe, pcm)
        return (found if isinstance(found, Transcript) else await found).text

    try:
        yield transcribe
    finally:
        stt.close()


def likeness(said: str, expected: str) -> float:
    """Share of the expected words that were said, 0 to 1, in any order and with small differences of spelling."""
    words, heard = _words(expected), _words(said)
    if not words:
        raise ProtocolError("there are no words in what the agent is expected to say")
    found = 0
    for word in words:
        match = difflib.get_close_matches(word, heard, n=1, cutoff=_SAME_WORD)
        if match:
            heard.remove(match[0])
            found += 1
    return found / len(words)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold().replace("'", ""))


async def assert_says_something_like(
    answer: HeardAnswer, text: str, transcribe: Transcribe, *, at_least: float = 0.6
) -> None:
    """`at_least` of the words of `text` are in the answer, by the ear of `transcribe`."""
    assert len(answer.pcm), f"the agent said nothing, not something like {text!r}"
    heard = transcribe(resample(answer.pcm, answer.rate_hz, STT_RATE_HZ))
    said = await heard if inspect.isawaitable(heard) else heard
    share = likeness(said, text)
    assert share >= at_least, (
        f"the agent said {said!r}, with {share:.0%} of the words of {text!r}, not {at_least:.0%}"
    )

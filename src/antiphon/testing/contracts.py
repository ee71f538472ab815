"""What every back end of a kind must do: one check per port, to be called from a test.

    def test_contract() -> None:
        model = MySpeechToText(weights)
        model.load()
        check_stt(model)

Each takes a loaded model and raises AssertionError with a sentence that says what was promised. For
an asynchronous back end give the `asyncio.Runner` on which it was loaded. The checks know no
particular model: they say nothing of how good one is, except where they are given speech.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Generator, Iterable, Sequence
from typing import Any

import numpy as np

from antiphon.models.ports import (
    STT_RATE_HZ,
    LanguageModel,
    LlmDelta,
    LlmRequest,
    Message,
    ModelInfo,
    Pcm16,
    SpeechRequest,
    SpeechToText,
    TextToSpeech,
    Transcript,
    TurnDetector,
    Vad,
)

_BATCH_DIFFERENCE = 0.01
"""Batching changes the order of additions in a network, nothing else."""


def check_vad(model: Vad, *, speech: Pcm16 | None = None, speech_rate_hz: int = 16_000) -> None:
    """`speech`: mono, mostly speech, at a rate that the model takes; most of it must be found."""
    _check_info(model)
    _must(bool(model.rates_hz), "rates_hz must name a rate")
    for rate_hz in model.rates_hz:
        samples = model.window_samples(rate_hz)
        _must(10 <= samples * 1000 / rate_hz <= 100, "a window must last 10 to 100 ms")
        silence = _frozen(np.zeros(samples, np.int16))
        noise = _frozen(_noise(samples * 8))
        quiet = _vad_scores(model, rate_hz, [silence] * 8)
        _must(max(quiet) < 0.5, f"silence at {rate_hz} Hz must not be taken for speech")
        windows = [noise[start : start + samples] for start in range(0, noise.size, samples)]
        alone = _vad_scores(model, rate_hz, windows)
        states = [model.new_state(rate_hz) for _ in range(3)]
        together = [model.score([window, silence, window], states) for window in windows]
        for step, scores in enumerate(together):
            _must(len(scores) == 3, "score() must give one probability per window")
            for score, expected in zip(
                scores, (alone[step], quiet[step], alone[step]), strict=True
            ):
                _must(
                    abs(float(score) - expected) < _BATCH_DIFFERENCE,
                    "windows scored together must get what they get alone: states must not mix",
                )
    if speech is not None:
        _check_vad_on_speech(model, speech, speech_rate_hz)


def check_turn(model: TurnDetector, *, runner: asyncio.Runner | None = None) -> None:
    _check_info(model)
    with _Loop(runner) as loop:
        for samples in (1, 1_600, 8 * STT_RATE_HZ, 20 * STT_RATE_HZ):
            for audio in (np.zeros(samples, np.int16), _noise(samples)):
                finished = loop.settle(model.predict(_frozen(audio)))
                _must(
                    isinstance(finished, float) and 0.0 <= finished <= 1.0,
                    f"predict() must give a probability for {samples} samples, not {finished!r}",
                )


def check_stt(
    model: SpeechToText,
    *,
    speech: Pcm16 | None = None,
    words: Sequence[str] = (),
    runner: asyncio.Runner | None = None,
) -> None:
    """`speech`: at 16 kHz; each of `words` must be in its transcript, in any case."""
    _check_info(model)
    with _Loop(runner) as loop:
        for samples in (1, STT_RATE_HZ // 50, STT_RATE_HZ):
            silence = _frozen(np.zeros(samples, np.int16))
            heard = loop.settle(model.transcribe(silence))
            _must(isinstance(heard, Transcript), "transcribe() must give a Transcript")
            _must(
                heard.text == "", f"{samples} samples of silence must be heard as no words at all"
            )
        noise = _frozen(_noise(STT_RATE_HZ))
        for partial in (True, False):
            heard = loop.settle(model.transcribe(noise, language="en", partial=partial))
            _must(isinstance(heard, Transcript), "transcribe() must give a Transcript")
            _must(
                heard.text == heard.text.strip(), "a transcript must not begin or end with a space"
            )
        if speech is not None:
            first = loop.settle(model.transcribe(_frozen(speech)))
            again = loop.settle(model.transcribe(_frozen(speech)))
            _must(first == again, "the same audio must give the same transcript")
            for word in words:
                found = word.lower() in first.text.lower()
                _must(found, f"the transcript must contain {word!r}: {first.text!r}")


def check_llm(model: LanguageModel, *, runner: asyncio.Runner | None = None) -> None:
    _check_info(model)
    with _Loop(runner) as loop:
        deltas = list(loop.items(model.generate(_request("Say hello."))))
        _check_reply(deltas)
        _must(any(delta.text for delta in deltas), "a reply must have a text")
        loop.settle(model.warm(_request("Say hello and")))
        short = list(loop.items(model.generate(_request("Count from one to fifty.", max_tokens=3))))
        _check_reply(short)
        usage = short[-1].usage
        _must(usage is None or usage.output_tokens <= 3, "max_tokens must be kept")
        for _ in range(3):
            begun = loop.items(model.generate(_request("Tell me a long story.")))
            next(begun)
            begun.close()
        _check_reply(list(loop.items(model.generate(_request("Say hello.")))))
        loop.settle(model.release("contract"))
        loop.settle(model.release("no such call"))
        _check_reply(list(loop.items(model.generate(_request("Say hello.")))))


def check_tts(model: TextToSpeech, *, runner: asyncio.Runner | None = None) -> None:
    _check_info(model)
    with _Loop(runner) as loop:
        _must(8_000 <= model.sample_rate_hz <= 48_000, "sample_rate_hz must be 8000 to 48000")
        sentence = SpeechRequest("Good morning, how can I help you today?")
        pieces = list(loop.items(model.synthesize(sentence)))
        _must(bool(pieces), "a sentence must give audio")
        for piece in pieces:
            _must(
                isinstance(piece, np.ndarray) and piece.dtype == np.int16 and piece.ndim == 1,
                "audio must be int16 arrays of shape [samples]",
            )
            _must(piece.size > 0, "no piece of audio may be empty")
        said = np.concatenate(pieces)
        seconds = said.size / model.sample_rate_hz
        _must(0.5 <= seconds <= 10.0, f"8 words must not take {seconds:.1f} s: is the rate right?")
        _must(int(np.abs(said.astype(np.int32)).max()) > 100, "a sentence must not be silent")
        for nothing in ("", "  ", "...", "\n"):
            audio = list(loop.items(model.synthesize(SpeechRequest(nothing))))
            _must(not audio, f"{nothing!r} has nothing to say and must yield nothing")
        begun = loop.items(model.synthesize(sentence))
        next(begun)
        begun.close()
        fast = list(loop.items(model.synthesize(SpeechRequest(sentence.text, speed=1.5))))
        _must(sum(piece.size for piece in fast) < said.size, "speed 1.5 must be faster than 1.0")


class _Loop:
    """Awaits what a back end gives, if it is asynchronous."""

    def __init__(self, runner: asyncio.Runner | None) -> None:
        self._runner = runner or asyncio.Runner()
        self._owned = runner is None

    def __enter__(self) -> _Loop:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._runner.close()

    def settle(self, value: Any) -> Any:
        if not inspect.isawaitable(value):
            return value

        async def wait() -> Any:
            return await value

        return self._runner.run(wait())

    def items(self, stream: Iterable[Any] | AsyncIterator[Any]) -> Generator[Any, None, None]:
        """Of a stream of either kind; closing this closes the stream."""
        if isinstance(stream, Iterable):
            yield from stream
            return
        end = object()
        try:
            while (item := self.settle(anext(stream, end))) is not end:
                yield item
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                self.settle(close())


def _check_info(model: Any) -> None:
    _must(isinstance(model.info, ModelInfo), "info must be a ModelInfo")
    _must(bool(model.info.name), "info must have a name")


def _check_reply(deltas: Sequence[LlmDelta]) -> None:
    _must(bool(deltas), "generate() must give at least one delta")
    _must(all(isinstance(delta, LlmDelta) for delta in deltas), "generate() must give LlmDeltas")
    finishes = [delta.finish for delta in deltas]
    _must(
        finishes[-1] in ("stop", "length", "tool_calls"),
        f"the last delta must say how the reply finished, not {finishes[-1]!r}",
    )
    _must(not any(finishes[:-1]), "only the last delta may carry finish")


def _check_vad_on_speech(model: Vad, speech: Pcm16, rate_hz: int) -> None:
    samples = model.window_samples(rate_hz)
    starts = range(0, speech.size - samples + 1, samples)
    scores = _vad_scores(model, rate_hz, [_frozen(speech[at : at + samples]) for at in starts])
    found = sum(score >= 0.5 for score in scores) / len(scores)
    _must(found > 0.5, f"speech must be found; only {found:.0%} of its windows were")


def _vad_scores(model: Vad, rate_hz: int, windows: Sequence[Pcm16]) -> list[float]:
    """Of one call, window by window."""
    state = model.new_state(rate_hz)
    scores = [float(model.score([window], [state])[0]) for window in windows]
    _must(all(0.0 <= score <= 1.0 for score in scores), "a score must be a probability 0 to 1")
    return scores


def _request(said: str, max_tokens: int = 24) -> LlmRequest:
    messages = (
        Message("system", "You are a friendly assistant on the phone. Answer in one sentence."),
        Message("user", "Hi!"),
        Message("assistant", "Hello, how can I help you?"),
        Message("user", said),
    )
    return LlmRequest(messages, call_id="contract", max_tokens=max_tokens)


def _noise(samples: int) -> Pcm16:
    """Faint, and always the same."""
    noise: Pcm16 = np.random.default_rng(7).normal(0, 200, samples).astype(np.int16)
    return noise


def _frozen(audio: Pcm16) -> Pcm16:
    """Audio belongs to whoever gave it: a model that writes into it fails here."""
    frozen = audio.copy()
    frozen.flags.writeable = False
    return frozen


def _must(promise: bool, sentence: str) -> None:
    if not promise:
        raise AssertionError(sentence)

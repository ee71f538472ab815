"""The whole port for a back end that implements only the heart of it, and returns simple types.

A plug-in may be as simple as a class with `load()` and `transcribe(audio)`. What it leaves out
(`close`, `warm`, `release`, `info`, keyword arguments) and the form in which it takes things (text
or a request, samples or a WAV file) is decided here, once, from its signatures. What it returns is
converted as it comes: a result, a pair of result and seconds, an iterator, floating-point samples.

This module does not know threads, schedulers or chains. An adapter calls the back end on whatever thread
it is called on; `is_async` says whether its work must be awaited on the event loop.

Raises ModelError for a
value that cannot be meant.
"""

from __future__ import annotations

import inspect
import io
import wave
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing
from typing import Any

import numpy as np

from antiphon.errors import ConfigError, ModelError
from antiphon.models.ports import (
    STT_RATE_HZ,
    Kind,
    LlmDelta,
    LlmRequest,
    ModelInfo,
    Pcm16,
    SpeechRequest,
    Transcript,
)

_DEFAULT_TTS_RATE_HZ = 24_000
_LEAST_RATE_HZ = 4_000
"""A number beside audio is its rate from here up, else the seconds that it took."""


def is_async_function(function: Any) -> bool:
    """Whether calling it gives something to be awaited or iterated asynchronously, as far as it
    says so.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    try:
        returns = str(inspect.signature(function).return_annotation)
    except (TypeError, ValueError):
        return False
    # `None | Awaitable[None]` is how the ports allow both; only a plain promise counts.
    return "|" not in returns and any(
        word in returns for word in ("AsyncIterator", "AsyncGenerator", "Awaitable", "Coroutine")
    )


class Adapted:
    """What every adapter shares: the life of the model, and what it says of itself."""

    main_method = ""

    def __init__(self, kind: Kind, name: str, backend: Any) -> None:
        self.kind = kind
        self.name = name
        self.backend = backend
        """The object that the back end's class constructed."""
        main = getattr(backend, self.main_method, None)
        if not callable(main):
            raise ConfigError(
                f"{kind} model {name!r}: class {type(backend).__name__} "
                f"has no method {self.main_method}()"
            )
        self._main: Callable[..., Any] = main
        self._parameters = _parameters(main)
        self.is_async = is_async_function(main)

    @property
    def info(self) -> ModelInfo:
        """What the back end says of itself, else its name and class."""
        info = getattr(self.backend, "info", None)
        if isinstance(info, ModelInfo):
            return info
        detail = getattr(self.backend, "model_name", None) or type(self.backend).__name__
        return ModelInfo(name=self.name, detail=str(detail))

    @property
    def parallel(self) -> int | None:
        """How many requests it serves at once, when it says so (attribute `parallel`)."""
        parallel = getattr(self.backend, "parallel", None)
        return parallel if isinstance(parallel, int) and parallel > 0 else None

    def optional(self, method: str) -> Callable[..., Any] | None:
        """A method that a back end may lack, e.g. `load`, `close`, `warm`, `release`."""
        found = getattr(self.backend, method, None)
        return found if callable(found) else None

    def load(self) -> Awaitable[None] | None:
        load = self.optional("load")
        result: Awaitable[None] | None = load() if load else None
        return result if inspect.isawaitable(result) else None

    def close(self) -> Awaitable[None] | None:
        close = self.optional("close")
        result: Awaitable[None] | None = close() if close else None
        return result if inspect.isawaitable(result) else None

    def _sync(self, result: Any) -> Any:
        """A result of a plain function that turns out to be asynchronous cannot be used on a
        thread.
        """
        if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
            if inspect.iscoroutine(result):
                result.close()
            raise ModelError(
                f"{self.kind} model {self.name!r}: {self.main_method}() gives something to await; "
                "define it with 'async def'"
            )
        return result


class AdaptedVad(Adapted):
    main_method = "score"

    def __init__(self, kind: Kind, name: str, backend: Any) -> None:
        super().__init__(kind, name, backend)
        if self.is_async:
            raise ConfigError(f"vad model {name!r}: score() must be a plain function")
        for needed in ("rates_hz", "window_samples"):
            if not hasattr(backend, needed):
                raise ConfigError(f"vad model {name!r}: class has no {needed}")

    @property
    def rates_hz(self) -> tuple[int, ...]:
        return tuple(self.backend.rates_hz)

    def window_samples(self, rate_hz: int) -> int:
        return int(self.backend.window_samples(rate_hz))

    def new_state(self, rate_hz: int) -> Any:
        new_state = self.optional("new_state")
        return new_state(rate_hz) if new_state else None

    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]:
        scores: Sequence[float] = self._main(windows, states)
        return scores


class AdaptedTurnDetector(Adapted):
    main_method = "predict"

    def predict(self, audio: Pcm16) -> float | Awaitable[float]:
        if self.is_async:
            return self._predict_async(audio)
        return float(split_pair(self._sync(self._main(audio)))[0])

    async def _predict_async(self, audio: Pcm16) -> float:
        return float(split_pair(await self._main(audio))[0])


class AdaptedStt(Adapted):
    main_method = "transcribe"

    def __init__(self, kind: Kind, name: str, backend: Any) -> None:
        super().__init__(kind, name, backend)
        self._as_wav = _takes(self._parameters, "bytes", ("bytes", "wav"))
        self._keywords = _accepted(self._parameters, ("language", "partial"))

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript | Awaitable[Transcript]:
        keywords = {"language": language, "partial": partial}
        passed = {key: keywords[key] for key in self._keywords}
        heard = as_wav_bytes(audio) if self._as_wav else audio
        if self.is_async:
            return self._transcribe_async(heard, passed)
        return as_transcript(self._sync(self._main(heard, **passed)))

    async def _transcribe_async(self, heard: Any, passed: Mapping[str, Any]) -> Transcript:
        return as_transcript(await self._main(heard, **passed))


class AdaptedLlm(Adapted):
    main_method = "generate"

    def __init__(self, kind: Kind, name: str, backend: Any) -> None:
        super().__init__(kind, name, backend)
        self._as_text = _takes(self._parameters, "str", ("text", "prompt", "message"))
        self._as_messages = _takes(self._parameters, "list", ("messages", "history"))

    def generate(self, request: LlmRequest) -> Iterator[LlmDelta] | AsyncIterator[LlmDelta]:
        asked = self._asked(request)
        return self._generate_async(asked) if self.is_async else self._generate(asked)

    def warm(self, request: LlmRequest) -> Awaitable[None] | None:
        warm = self.optional("warm")
        result: Awaitable[None] | None = warm(request) if warm else None
        return result

    def release(self, call_id: str) -> Awaitable[None] | None:
        release = self.optional("release")
        result: Awaitable[None] | None = release(call_id) if release else None
        return result

    def _asked(self, request: LlmRequest) -> Any:
        if self._as_messages:
            return [{"role": m.role, "content": m.content} for m in request.messages]
        if self._as_text:
            spoken = [m.content for m in request.messages if m.role == "user"]
            return spoken[-1] if spoken else ""
        return request

    def _generate(self, asked: Any) -> Iterator[LlmDelta]:
        finished = False
        with closing(_pieces(self._sync(self._main(asked)))) as pieces:
            for piece in pieces:
                delta = as_delta(piece)
                finished = finished or bool(delta.finish)
                yield delta
        if not finished:
            yield LlmDelta(finish="stop")

    async def _generate_async(self, asked: Any) -> AsyncIterator[LlmDelta]:
        finished = False
        async with aclosing(_async_pieces(self._main(asked))) as pieces:
            async for piece in pieces:
                delta = as_delta(piece)
                finished = finished or bool(delta.finish)
                yield delta
        if not finished:
            yield LlmDelta(finish="stop")


class AdaptedTts(Adapted):
    main_method = "synthesize"

    def __init__(self, kind: Kind, name: str, backend: Any) -> None:
        super().__init__(kind, name, backend)
        self._as_text = _takes(self._parameters, "str", ("text", "sentence", "prompt"))
        self._keywords = _accepted(self._parameters, ("voice", "language", "speed"))
        self._heard_rate_hz = 0

    @property
    def sample_rate_hz(self) -> int:
        """The back end's `sample_rate_hz` or `sample_rate`, else what came with its last audio."""
        for attribute in ("sample_rate_hz", "sample_rate"):
            rate = getattr(self.backend, attribute, None)
            if isinstance(rate, int) and rate > 0:
                return rate
        return self._heard_rate_hz or _DEFAULT_TTS_RATE_HZ

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16] | AsyncIterator[Pcm16]:
        if self._as_text:
            keywords = {key: getattr(request, key) for key in self._keywords}
            asked: tuple[Any, dict[str, Any]] = (request.text, keywords)
        else:
            asked = (request, {})
        return self._synthesize_async(*asked) if self.is_async else self._synthesize(*asked)

    def _synthesize(self, asked: Any, keywords: Mapping[str, Any]) -> Iterator[Pcm16]:
        with closing(_pieces(self._sync(self._main(asked, **keywords)))) as pieces:
            for piece in pieces:
                yield from self._audio(piece)

    async def _synthesize_async(
        self, asked: Any, keywords: Mapping[str, Any]
    ) -> AsyncIterator[Pcm16]:
        async with aclosing(_async_pieces(self._main(asked, **keywords))) as pieces:
            async for piece in pieces:
                for audio in self._audio(piece):
                    yield audio

    def _audio(self, piece: Any) -> Iterator[Pcm16]:
        samples, number = split_pair(piece)
        audio, rate_hz = as_pcm16(samples)
        if number is not None and number >= _LEAST_RATE_HZ:
            rate_hz = int(number)
        if rate_hz:
            self._heard_rate_hz = rate_hz
        if audio.size:
            yield audio


_ADAPTERS: Mapping[Kind, type[Adapted]] = {
    Kind.VAD: AdaptedVad,
    Kind.TURN: AdaptedTurnDetector,
    Kind.STT: AdaptedStt,
    Kind.LLM: AdaptedLlm,
    Kind.TTS: AdaptedTts,
}


def adapt(kind: Kind, name: str, backend: Any) -> Adapted:
    """Raises ConfigError when the back end lacks what makes it a model of this kind."""
    return _ADAPTERS[kind](kind, name, backend)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # built in C without a signature: take what the port gives
        return []


def _takes(parameters: Sequence[inspect.Parameter], annotation: str, words: Sequence[str]) -> bool:
    """Whether the first parameter has this type or, unannotated, a name like one of `words`."""
    if not parameters:
        return False
    first = parameters[0]
    if first.annotation is not inspect.Parameter.empty:
        written = first.annotation
        name = written if isinstance(written, str) else getattr(written, "__name__", str(written))
        return name.strip("'\" ").split("[")[0] == annotation
    return any(
        first.name.lower() == word or first.name.lower().endswith("_" + word) for word in words
    )


def _accepted(parameters: Sequence[inspect.Parameter], names: Sequence[str]) -> tuple[str, ...]:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) or not parameters:
        return tuple(names)
    held = {parameter.name for parameter in parameters[1:]}
    return tuple(name for name in names if name in held)


def _is_single(result: Any) -> bool:
    """One whole answer rather than a stream of pieces."""
    if isinstance(result, str | bytes | LlmDelta | np.ndarray) or hasattr(result, "detach"):
        return True
    if isinstance(result, tuple) and len(result) == 2:
        return split_pair(result)[1] is not None
    return isinstance(result, list) and bool(result) and isinstance(result[0], int | float)


def _pieces(result: Any) -> Generator[Any, None, None]:
    if result is None:
        return
    if _is_single(result):
        yield result
        return
    try:
        yield from result
    finally:
        close = getattr(result, "close", None)
        if callable(close):
            close()


async def _async_pieces(result: Any) -> AsyncGenerator[Any, None]:
    if inspect.isawaitable(result):
        result = await result
    if not hasattr(result, "__aiter__"):
        for piece in _pieces(result):
            yield piece
        return
    try:
        async for piece in result:
            yield piece
    finally:
        close = getattr(result, "aclose", None)
        if callable(close):
            await close()


def split_pair(value: Any) -> tuple[Any, float | None]:
    """`(result, number)`, as recipes with a stop watch or a sample rate return it -> its two
    halves.

    Anything else -> (value, None).
    """
    if isinstance(value, tuple) and len(value) == 2:
        result, number = value
        if _is_number(number) and not _is_number(result):
            return result, float(number)
    return value, None


def as_transcript(value: Any) -> Transcript:
    """A Transcript, a text, None (nothing heard), or one of them with the seconds it took."""
    heard = split_pair(value)[0]
    if isinstance(heard, Transcript):
        return heard
    if heard is None:
        return Transcript("")
    if isinstance(heard, str):
        return Transcript(heard.strip())
    raise ModelError(f"transcribe() must return a text, not {type(heard).__name__}")


def as_delta(value: Any) -> LlmDelta:
    """A LlmDelta, a text, or one of them with the seconds it took."""
    said = split_pair(value)[0]
    if isinstance(said, LlmDelta):
        return said
    if isinstance(said, str):
        return LlmDelta(said)
    raise ModelError(f"generate() must give texts, not {type(said).__name__}")


def as_pcm16(value: Any) -> tuple[Pcm16, int]:
    """Samples of any kind -> (mono PCM, rate or 0 if unknown).

    Taken: int16, other integers within its range, floats within -1..1, a tensor, a WAV file as
    bytes.
    """
    if isinstance(value, bytes | bytearray):
        return _from_wav(bytes(value))
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu().numpy()
    samples = np.asarray(value)
    if samples.dtype.kind not in "iuf":
        raise ModelError(f"synthesize() must give samples, not {type(value).__name__}")
    if samples.ndim > 1:
        samples = samples.squeeze()
    if samples.ndim > 1:
        raise ModelError(f"synthesize() must give mono audio, not shape {samples.shape}")
    samples = samples.reshape(-1)
    if samples.dtype == np.int16:
        return samples, 0
    if samples.dtype.kind == "f":
        scaled = np.nan_to_num(samples.astype(np.float32)) * 32767.0
        return np.clip(np.rint(scaled), -32768, 32767).astype(np.int16), 0
    return np.clip(samples, -32768, 32767).astype(np.int16), 0


def as_wav_bytes(audio: Pcm16, rate_hz: int = STT_RATE_HZ) -> bytes:
    """Mono PCM [samples] as a whole WAV file in memory."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(audio.astype("<i2").tobytes())
    return buffer.getvalue()


def _from_wav(data: bytes) -> tuple[Pcm16, int]:
    try:
        with wave.open(io.BytesIO(data)) as reader:
            channels, width = reader.getnchannels(), reader.getsampwidth()
            rate_hz = reader.getframerate()
            frames = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise ModelError(f"synthesize() gave bytes that are not a WAV file: {error}") from error
    if channels != 1 or width != 2:
        raise ModelError("synthesize() must give 16-bit mono WAV files")
    return np.frombuffer(frames, dtype="<i2").astype(np.int16), rate_hz


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)

"""All models of a process, as a call sees them: ask for a kind of work, get the result of whichever
model does it.

This module does not know turns, sessions or protocols, nor any particular back end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from antiphon.errors import (
    AntiphonError,
    BusyError,
    ConfigError,
    ModelError,
    RequestError,
)
from antiphon.models.chat_request import checked
from antiphon.models.duck_typing import (
    AdaptedLlm,
    AdaptedStt,
    AdaptedTts,
    AdaptedTurnDetector,
    AdaptedVad,
)
from antiphon.models.fair_queue import Work
from antiphon.models.fallback import FallbackChain, FallbackConfig
from antiphon.models.model_handle import LOAD_S, ModelHandle
from antiphon.models.ports import (
    Kind,
    LlmDelta,
    LlmRequest,
    ModelInfo,
    ModelStatus,
    Pcm16,
    SpeechRequest,
    Transcript,
    WeightSource,
)
from antiphon.models.registry import Registry, parse_spec, shared_registry
from antiphon.models.scheduler import Scheduler, SchedulerLimits, SchedulerStats
from antiphon.models.speech_cache import CachedSpeech, SpeechCache
from antiphon.models.vad_batcher import VadBatcher
from antiphon.models.workers import run_in_thread
from antiphon.text import TextJoiner, valid_text

__all__ = ["FallbackConfig", "ModelSet", "SpeechChunk", "Work"]

log = logging.getLogger(__name__)

_NOTHING = LlmDelta()
MAX_SPEECH_CHARS = 4_096
"""Of one request to a voice. Doors cut what they say into clauses; nothing longer is one."""

UNDECIDED = 0.5
"""What a missing or failing turn detector says: neither finished nor unfinished."""

LIMITS: Mapping[Kind, SchedulerLimits] = {
    # Later than this, the silence limit has decided anyway.
    Kind.TURN: SchedulerLimits(wait_s=2.0, total_s=5.0),
    Kind.STT: SchedulerLimits(),
    Kind.LLM: SchedulerLimits(),
    Kind.TTS: SchedulerLimits(),
}


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    pcm: Pcm16
    rate_hz: int


class ModelSet:
    """One chain per kind, shared by all calls. Belongs to the event loop that calls `load`."""

    def __init__(
        self,
        chains: Iterable[FallbackConfig],
        weights: WeightSource,
        *,
        preload: bool = True,
        one_at_a_time: bool = False,
        limits: Mapping[Kind, SchedulerLimits] | None = None,
        registry: Registry | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`preload`: load in `load()`; else when a model is first asked (voice activity always in
        `load()`). `one_at_a_time`: never load two models at once, which takes longer and less
        memory. `limits`: instead of `LIMITS`. `now_s`: the clock by which failing models rest.

        Raises ConfigError for an unknown model.
        """
        self._weights = weights
        self._preload = preload
        self._one_at_a_time = one_at_a_time
        self._limits = {**LIMITS, **(limits or {})}
        self._registry = registry or shared_registry()
        self._now_s = now_s
        self._on_change: Callable[[ModelStatus], None] | None = None
        self._chains: dict[Kind, FallbackChain] = {}
        for config in chains:
            if config.kind in self._chains:
                raise ConfigError(f"there are two chains of {config.kind} models; write one")
            self._chains[config.kind] = self._new_chain(config)
        self.speech_cache: SpeechCache | None = None
        """Where speech is kept for the next time; None: nowhere. Set it before the first request."""
        self._vad: VadBatcher | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---------------------------------------------------------------------------------------

    async def load(self, on_change: Callable[[ModelStatus], None] | None = None) -> None:
        """Load the first usable model of each chain. `on_change` is called with each new status.

        Raises ConfigError for an option that a back end does not have, ModelError when a kind is
        left without any usable model; only the turn detector may fail. What was loaded stays so:
        `close` it.
        """
        self._on_change = on_change
        await run_in_thread(self._construct, name="antiphon models", timeout_s=LOAD_S)
        wanted = [
            kind for kind in Kind if self._links(kind) and (self._preload or kind is Kind.VAD)
        ]
        if self._one_at_a_time:
            errors = [await self._load_kind(kind) for kind in wanted]
        else:
            errors = await asyncio.gather(*(self._load_kind(kind) for kind in wanted))
        reasons = [str(error) for error in errors if error is not None]
        if reasons:
            raise ModelError("; ".join(reasons))

    async def close(self) -> None:
        """End all requests, free all models."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._vad is not None:
            await self._vad.close()
        for chain in self._chains.values():
            await chain.close()
        if self.speech_cache is not None:
            self.speech_cache.close()

    @property
    def ready(self) -> bool:
        """Calls can be served: each kind has a model that is loaded and well (or may yet be
        loaded).
        """
        return all(self._kind_ready(kind) for kind in self._chains if kind is not Kind.TURN)

    def status(self) -> list[ModelStatus]:
        """All models of all chains, in order."""
        chains = [self._chains[kind] for kind in Kind if kind in self._chains]
        return [replace(status) for chain in chains for status in chain.status()]

    def info(self, kind: Kind) -> ModelInfo:
        """Of the model in use. Raises ModelError when no model of this kind is configured."""
        link = self._current(kind)
        return ModelInfo(link.status.name) if link.model is None else link.model.info

    def backend(self, kind: Kind) -> Any:
        """The object of the model in use, for tests and diagnosis. Raises ModelError if there is
        none.
        """
        model = self._current(kind).model
        if model is None:
            raise ModelError(f"no {kind} model is loaded")
        return model.backend

    @property
    def partials(self) -> bool:
        """Whether the speech to text in use may transcribe again and again while the caller speaks."""
        return bool(self._links(Kind.STT)) and self.info(Kind.STT).partials

    def scheduler_stats(self) -> dict[str, SchedulerStats]:
        """Counters by `kind:spec`; voice activity has one scheduler, `vad`."""
        stats = {} if self._vad is None else {"vad": self._vad.stats()}
        for kind in Kind:
            for link in self._links(kind):
                if link.scheduler is not None:
                    stats[f"{kind}:{link.spec}"] = link.scheduler.stats()
        return stats

    # --- work ---------------------------------------------------------------------------------------

    @property
    def vad(self) -> VadBatcher:
        """Raises ModelError before `load`, or when no VAD is configured."""
        if self._vad is None:
            raise ModelError("no vad model is loaded; name one in the settings")
        return self._vad

    async def predict_turn(self, audio: Pcm16, *, work: Work) -> float:
        """Probability 0..1 that this utterance (16 kHz) is finished. 0.5 without a detector that
        works.
        """
        chain = self._chains.get(Kind.TURN)
        if chain is None or not chain.links:
            return UNDECIDED

        async def ask(link: ModelHandle) -> float:
            model = cast(AdaptedTurnDetector, link.model)
            return cast(float, await _scheduler(link).run(lambda: model.predict(audio), work))

        try:
            return await chain.run(ask, work.call_id)
        except AntiphonError as error:
            log.info("no turn detection in call %s: %s", work.call_id, error)
            return UNDECIDED

    async def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False, work: Work
    ) -> Transcript:
        """The words of an utterance (16 kHz). Raises ModelError, BusyError, RequestError."""

        async def ask(link: ModelHandle) -> Transcript:
            model = cast(AdaptedStt, link.model)
            heard = await _scheduler(link).run(
                lambda: model.transcribe(audio, language=language, partial=partial), work
            )
            return cast(Transcript, heard)

        heard = await self._chain(Kind.STT).run(ask, work.call_id)
        text = valid_text(heard.text)
        return heard if text is heard.text else replace(heard, text=text)

    async def generate(self, request: LlmRequest, *, work: Work) -> AsyncGenerator[LlmDelta, None]:
        """Stream a reply; closing the stream stops the model. Raises ModelError, BusyError, and RequestError
        for what `chat_request.checked` or the model refuses.
        """
        request = checked(request)

        async def ask(link: ModelHandle) -> AsyncGenerator[LlmDelta, None]:
            model = cast(AdaptedLlm, link.model)
            async with aclosing(
                _scheduler(link).stream(lambda: model.generate(request), work)
            ) as items:
                async for delta in items:
                    # A back end may give empty ones, so that it can be stopped while it reads.
                    if delta != _NOTHING:
                        yield delta

        joiner = TextJoiner()
        async with aclosing(self._chain(Kind.LLM).stream(ask, work.call_id)) as deltas:
            async for delta in deltas:
                yield _valid(delta, joiner)
        if rest := joiner.flush():
            yield LlmDelta(rest)

    async def warm(self, request: LlmRequest, *, work: Work) -> None:
        """Read the prompt ahead, if the model in use can and is idle; else do nothing. Never fails."""
        chain = self._chain(Kind.LLM)
        link = chain.current
        if link is None or not chain.is_well(link):
            return
        try:
            await link.call_if_idle("warm", checked(request), work.call_id)
        except (AntiphonError, TimeoutError) as error:
            log.info("%s was not warmed: %s", link.title, error)

    async def synthesize(
        self, request: SpeechRequest, *, work: Work
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the audio of a clause; closing it stops the model. Raises ModelError, BusyError, RequestError."""
        if len(request.text) > MAX_SPEECH_CHARS:
            raise RequestError(
                f"the text has {len(request.text)} characters; {MAX_SPEECH_CHARS} are said at a time",
                "input",
            )
        request = replace(request, text=valid_text(request.text))

        async def ask(link: ModelHandle) -> AsyncGenerator[SpeechChunk, None]:
            model = cast(AdaptedTts, link.model)
            key = self._speech_key(model.info, request)
            if key and (spoken := await self._spoken(key)) is not None:
                yield SpeechChunk(spoken.pcm, spoken.rate_hz)
                return
            made: list[Pcm16] = []
            async with aclosing(
                _scheduler(link).stream(lambda: model.synthesize(request), work)
            ) as items:
                async for pcm in items:
                    if key:
                        made.append(pcm)
                    yield SpeechChunk(pcm, model.sample_rate_hz)
            if key and made:
                await self._keep_speech(key, made, model.sample_rate_hz)

        async with aclosing(self._chain(Kind.TTS).stream(ask, work.call_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    @property
    def learns_voices(self) -> bool:
        """Whether the text to speech in use can learn a voice from a clip."""
        model = self._current(Kind.TTS).model
        return model is not None and model.optional("learn_voice") is not None

    async def learn_voice(self, name: str, clip: Path, *, work: Work) -> None:
        """From now on `name` may be asked for: the voice of whoever speaks in `clip`. Raises ModelError, BusyError."""
        link = self._current(Kind.TTS)
        learn = link.model and link.model.optional("learn_voice")
        if not learn:
            raise ModelError(f"{link.title} cannot learn voices")
        await _scheduler(link).run(lambda: learn(name, clip), work)

    def _speech_key(self, info: ModelInfo, request: SpeechRequest) -> str:
        """Empty: not to be kept."""
        if self.speech_cache is None:
            return ""
        return self.speech_cache.key(f"{info.name} {info.detail}", request)

    async def _spoken(self, key: str) -> CachedSpeech | None:
        cache = self.speech_cache
        assert cache is not None
        if not cache.waits:
            return cache.get(key)
        return cache.recall(key) or await asyncio.to_thread(cache.get, key)

    async def _keep_speech(self, key: str, made: list[Pcm16], rate_hz: int) -> None:
        cache = self.speech_cache
        assert cache is not None
        if cache.waits:
            await asyncio.to_thread(cache.put, key, made, rate_hz)
        else:
            cache.put(key, made, rate_hz)

    async def release(self, call_id: str) -> None:
        """The call has ended: models and chains forget it. Goes on when its caller is cancelled."""
        for chain in self._chains.values():
            chain.forget(call_id)
        await asyncio.shield(self._spawn(self._release(call_id)))

    # --- how ----------------------------------------------------------------------------------------

    def _new_chain(self, config: FallbackConfig) -> FallbackChain:
        links = [self._new_link(config, spec) for spec in config.specs]
        return FallbackChain(config.kind, links, self._now_s)

    def _new_link(self, config: FallbackConfig, spec: str) -> ModelHandle:
        kind, registry, weights = config.kind, self._registry, self._weights
        name, _ = parse_spec(spec)
        registry.find(kind, name)
        options = {**config.options.get(name, {}), **config.options.get(spec, {})}
        return ModelHandle(
            kind,
            spec,
            lambda: registry.create(kind, spec, weights, options),
            options=options,
            limits=self._limits.get(kind),
            on_change=self._changed,
        )

    def _construct(self) -> None:
        for kind in Kind:
            for link in self._links(kind):
                link.construct()

    def _changed(self, status: ModelStatus) -> None:
        if self._on_change is not None:
            self._on_change(status)

    def _links(self, kind: Kind) -> tuple[ModelHandle, ...]:
        return self._chains[kind].links if kind in self._chains else ()

    def _chain(self, kind: Kind) -> FallbackChain:
        if not self._links(kind):
            raise ModelError(f"no {kind} model is configured; name one in the settings")
        return self._chains[kind]

    def _current(self, kind: Kind) -> ModelHandle:
        chain = self._chain(kind)
        return chain.current or chain.links[0]

    def _kind_ready(self, kind: Kind) -> bool:
        links = self._links(kind)
        if not links or self._chains[kind].ready:
            return True
        return not self._preload and any(link.status.state == "waiting" for link in links)

    async def _load_kind(self, kind: Kind) -> ModelError | None:
        chain = self._chains[kind]
        try:
            await chain.load()
        except ModelError as error:
            if kind is not Kind.TURN:
                return error
            log.warning("turns are ended by silence alone: %s", error)
        if kind is Kind.VAD and chain.current is not None:
            self._vad = VadBatcher(on_failure=self._vad_failed)
            self._vad.use(chain.current.title, cast(AdaptedVad, chain.current.model))
        return None

    async def _release(self, call_id: str) -> None:
        for link in self._links(Kind.LLM):
            try:
                await link.call_in_line("release", call_id, Work(call_id))
            except (ModelError, BusyError, TimeoutError) as error:
                log.warning("%s did not release call %s: %s", link.title, call_id, error)

    def _vad_failed(self, error: ModelError, in_a_row: int) -> None:
        if in_a_row <= 2:  # a broken one fails 30 times a second
            log.warning("voice activity: %s", error)
        if in_a_row == 2:
            self._spawn(self._replace_vad(error))

    async def _replace_vad(self, error: ModelError) -> None:
        """For good: the calls' states would be lost again on the way back."""
        chain, failing = self._chains[Kind.VAD], self._current(Kind.VAD)
        for link in chain.links[chain.links.index(failing) + 1 :]:
            if not await link.open():
                continue
            model = cast(AdaptedVad, link.model)
            if not _same_windows(cast(AdaptedVad, failing.model), model):
                log.warning("%s cannot take over: its windows differ", link.title)
                continue
            chain.rest(failing, error, math.inf)
            self.vad.use(link.title, model)
            return
        log.error("%s fails, and there is no other", failing.title)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _valid(delta: LlmDelta, joiner: TextJoiner) -> LlmDelta:
    """With text that can be carried: the one place through which all words of language models come."""
    text = joiner.feed(delta.text)
    if delta.finish:
        text += joiner.flush()
    call, part = delta.tool_call, delta.tool_part
    if call is not None:
        call = replace(
            call,
            call_id=valid_text(call.call_id),
            name=valid_text(call.name),
            arguments=valid_text(call.arguments),
        )
    if part is not None:
        part = replace(
            part,
            call_id=valid_text(part.call_id),
            name=valid_text(part.name),
            text=valid_text(part.text),
        )
    if text is delta.text and call is None and part is None:
        return delta
    return replace(delta, text=text, tool_call=call, tool_part=part)


def _scheduler(link: ModelHandle) -> Scheduler:
    if link.scheduler is None:
        raise ModelError(f"{link.title} is shutting down")
    return link.scheduler


def _same_windows(old: AdaptedVad, new: AdaptedVad) -> bool:
    return all(
        rate_hz in new.rates_hz and new.window_samples(rate_hz) == old.window_samples(rate_hz)
        for rate_hz in old.rates_hz
    )

"""Antiphon on Ray Serve: calls come in at one deployment, the models are three others that grow by themselves.

    serve run deploy.ray.app:app                 # everything on this machine, the default models
    serve run deploy/ray/serve.yaml              # a plan: models, GPUs, replicas

Run in the repository's root, with `pip install antiphon 'ray[serve]'`. docs/howto/ray.md says more. The ingress is the
server as it always is; only its models are remote (the back ends named `ray`). Every replica reads the same settings
from its node's environment, and `Plan.settings` on top.
"""

# Without `from __future__ import annotations`: Serve looks for the class in the annotation of `app`.

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from antiphon.audio.resample import Resampler
from antiphon.config import Settings, load
from antiphon.errors import ConfigError, ModelError
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import (
    STT_RATE_HZ,
    Kind,
    LlmDelta,
    LlmRequest,
    Pcm16,
    SpeechRequest,
    Transcript,
)
from antiphon.models.remote.ray_serve import RemoteFacts
from antiphon.models.scheduler import SchedulerStats
from antiphon.models.store import WeightStore
from antiphon.server.app import create_app
from antiphon.server.model_loading import chains

log = logging.getLogger("antiphon.ray")

_REMOTE = (Kind.STT, Kind.LLM, Kind.TTS)
"""Voice activity and end of turn stay with the call: 30 windows a second are not worth a network."""
_HTTP_PLACES = 32
"""Of an ingress replica, beside its calls: pages, probes, OpenAI-compatible requests."""
_BATCH_SAMPLES = 28 * STT_RATE_HZ
"""Longer utterances are cut at quiet places, which is not work for a batch."""
_BATCH_S = 30.0
_STICKY_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Size(Strict):
    """How one deployment is spread over the cluster. CPUs and GPUs are Ray's: claims, not walls."""

    num_cpus: float = Field(0.5, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    """Per replica; 0.25 puts four on a GPU. That they fit into its memory is the owner's affair."""
    resources: dict[str, float] = {}
    """Custom resources of the nodes that it may run on, e.g. `{"voice": 0.01}`."""
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    ongoing: int = Field(8, ge=1)
    """Requests that a replica works on at a time; more wait in the queue of whoever asks."""
    target: float = Field(4.0, gt=0)
    """Requests per replica, waiting ones included, that the autoscaler aims at."""
    queued: int = Field(32, ge=1)
    """Requests in line per caller; one more gets "busy" at once."""
    upscale_delay_s: float = Field(5.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)
    look_back_s: float = Field(15.0, gt=10)
    """The load is averaged over so long; more than the 10 s between two reports of a replica."""

    def options(self, **more: Any) -> dict[str, Any]:
        """As `Deployment.options` takes them."""
        return {
            "ray_actor_options": {
                "num_cpus": self.num_cpus,
                "num_gpus": self.num_gpus,
                "resources": self.resources,
            },
            "max_ongoing_requests": self.ongoing,
            "max_queued_requests": self.queued,
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.target,
                "upscale_delay_s": self.upscale_delay_s,
                "downscale_delay_s": self.downscale_delay_s,
                "look_back_period_s": self.look_back_s,
            },
            **more,
        }


class Plan(Strict):
    """What `serve run` and the `args` of a Serve configuration file may say."""

    settings: dict[str, Any] = {}
    """Antiphon's own, by dotted name: `{"models.stt": "faster-whisper:large-v3-turbo"}`. No secrets: those belong into
    the environment of the nodes."""
    calls: Size = Size(num_cpus=0.5, queued=16)
    """`ongoing` and `target` are taken from `server.max_calls`."""
    stt: Size = Size()
    llm: Size = Size()
    tts: Size = Size()
    stt_batch: int = Field(8, ge=1)
    """Utterances at most that a replica hears in one pass, if its model can."""
    stt_batch_wait_s: float = Field(0.01, ge=0)
    """So long the first of a batch waits for others."""
    drain_s: float = Field(600.0, ge=0)
    """An ingress replica that is to go may wait so long for its calls to end."""


# --- models -----------------------------------------------------------------------------------------


class Replica:
    """One kind of model, with the lanes, limits and fallbacks that it has in one process."""

    async def start(self, kind: Kind, settings: dict[str, Any]) -> None:
        """Load it. Raises AntiphonError: Serve tries again elsewhere, and says so in `serve status`."""
        self.kind = kind
        chosen = load(settings)
        chain = [found for found in chains(chosen) if found.kind is kind]
        if any("ray" in found.specs for found in chain):
            raise ConfigError(f"models.{kind} is the remote back end itself; name a real model")
        self.models = ModelSet(chain, WeightStore())
        await self.models.load()
        self.rate_hz = 0
        if kind is Kind.TTS:
            self.rate_hz = int(self.models.backend(kind).sample_rate_hz)
        log.info("%s replica: %s", kind, self.models.info(kind).detail)

    async def describe(self) -> RemoteFacts:
        return RemoteFacts(self.models.info(self.kind), self.rate_hz)

    async def stats(self) -> tuple[str, dict[str, SchedulerStats]]:
        """-> the replica's id, and the counters of its lanes. For `handle.broadcast("stats")`."""
        return serve.get_replica_context().replica_id.unique_id, self.models.scheduler_stats()

    def check_health(self) -> None:
        """Serve replaces a replica that raises here."""
        if not self.models.ready:
            raise ModelError(f"the {self.kind} model does not work")


@serve.deployment
class Stt(Replica):
    """A model with a `transcribe_batch(audios, *, language)` hears several callers in one pass; others, one by one."""

    async def __init__(self, plan: Plan) -> None:
        await self.start(Kind.STT, plan.settings)
        self._in_one_pass = getattr(self.models.backend(Kind.STT), "transcribe_batch", None)
        self._together.set_max_batch_size(plan.stt_batch)  # type: ignore[attr-defined]
        self._together.set_batch_wait_timeout_s(plan.stt_batch_wait_s)  # type: ignore[attr-defined]

    async def transcribe(self, audio: Pcm16, language: str | None, partial: bool) -> Transcript:
        if self._in_one_pass is not None and audio.size <= _BATCH_SAMPLES:
            heard = await self._together((audio, language))
            if heard is not None:
                return heard
        return await self.models.transcribe(
            audio, language=language, partial=partial, work=Work("")
        )

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def _together(self, asked: Sequence[tuple[Pcm16, str | None]]) -> list[Transcript | None]:
        """What has come within `stt_batch_wait_s`; None for each that could not be heard in one pass."""
        found: list[Transcript | None] = [None] * len(asked)
        for language in {language for _, language in asked}:
            places = [at for at, (_, spoken) in enumerate(asked) if spoken == language]
            audios = [asked[at][0] for at in places]
            try:
                async with asyncio.timeout(_BATCH_S):
                    heard = await asyncio.to_thread(self._in_one_pass, audios, language=language)
            except (ModelError, TimeoutError) as error:
                log.warning("%d utterances are heard one by one: %s", len(audios), error)
                continue
            for at, transcript in zip(places, heard, strict=True):
                found[at] = transcript
        return found


@serve.deployment
class Llm(Replica):
    async def __init__(self, plan: Plan) -> None:
        await self.start(Kind.LLM, plan.settings)

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        deltas = self.models.generate(request, work=Work(request.call_id))
        async with aclosing(deltas):
            async for delta in deltas:
                yield delta

    async def warm(self, request: LlmRequest) -> None:
        await self.models.warm(request, work=Work(request.call_id))

    async def release(self, call_id: str) -> None:
        await self.models.release(call_id)


@serve.deployment
class Tts(Replica):
    async def __init__(self, plan: Plan) -> None:
        await self.start(Kind.TTS, plan.settings)

    async def synthesize(self, request: SpeechRequest) -> AsyncGenerator[Pcm16, None]:
        """All at one rate, also when a fallback with another one speaks."""
        resampler: Resampler | None = None
        chunks = self.models.synthesize(request, work=Work(""))
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk.rate_hz == self.rate_hz:
                    yield chunk.pcm
                    continue
                resampler = resampler or Resampler(chunk.rate_hz, self.rate_hz)
                yield resampler.process(chunk.pcm)
        if resampler is not None:
            yield resampler.flush()


# --- calls ------------------------------------------------------------------------------------------


@serve.deployment
@serve.ingress()
class Calls:
    """The server: its websockets, its page, its HTTP. Each replica holds its own calls."""

    def __init__(self, plan: Plan, *models: Any) -> None:
        """`models`: handles, by which Serve knows that they belong to this application."""
        self.settings = call_settings(plan)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.settings, WeightStore())


def call_settings(plan: Plan) -> Settings:
    """Of the ingress: as in the environment and the plan, with remote models. Raises ConfigError."""
    return load({**plan.settings, **{f"models.{kind}": "ray" for kind in _REMOTE}})


def app(plan: Plan) -> Application:
    """What `serve run` builds. Raises ConfigError for settings that are wrong."""
    settings = call_settings(plan)
    models = [
        Stt.options(**plan.stt.options()).bind(plan),
        Llm.options(
            **plan.llm.options(request_router_config={"request_router_class": _STICKY_ROUTER})
        ).bind(plan),
        Tts.options(**plan.tts.options()).bind(plan),
    ]
    max_calls = settings.server.max_calls
    calls = plan.calls.model_copy(
        update={"ongoing": max_calls + _HTTP_PLACES, "target": max(1.0, max_calls * 0.7)}
    )
    ingress = Calls.options(**calls.options(graceful_shutdown_timeout_s=plan.drain_s))
    return ingress.bind(plan, *models)

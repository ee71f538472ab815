"""Antiphon on Modal: an orchestrator without a GPU, and a service each for hearing, thinking and speaking.

    python deploy/modal/deploy.py serve       # or: modal serve deploy/modal/app.py
    python deploy/modal/deploy.py deploy

Callers reach the orchestrator alone. The services want a proxy-auth token of the workspace from whoever calls their
addresses, and then a token of our own. docs/howto/modal.md says which secrets there must be. `VOICE_*`
variables, set where this is deployed, choose models and GPUs.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import antiphon_modal as shared
import modal

if TYPE_CHECKING:
    from fastapi import FastAPI

app = modal.App("voice-stack")

_CHOICES = (
    "VOICE_STT",
    "VOICE_TTS",
    "VOICE_LLM",
    "VLLM_GPU_MEMORY_UTILIZATION",
    "VLLM_MAX_MODEL_LEN",
)
STT = shared.variable("VOICE_STT", "faster-whisper:large-v3-turbo")
TTS = shared.variable("VOICE_TTS", "kokoro")
LLM = shared.variable("VOICE_LLM", "vllm:Qwen/Qwen3-8B-AWQ")
_WARM = int(shared.variable("VOICE_WARM", "1"))
_START_S = 15 * shared.MINUTE_S
"""The first container of a model fetches its weights."""

_SERVICE: dict[str, Any] = {
    "env": shared.passed_on(*_CHOICES),
    "secrets": [shared.SERVICE_SECRET],
    "volumes": shared.VOLUMES,
    "min_containers": _WARM,
    "scaledown_window": shared.SCALEDOWN_S,
    "timeout": 10 * shared.MINUTE_S,
    "startup_timeout": _START_S,
}


@app.cls(
    image=shared.image("faster-whisper", cuda=True),
    gpu=shared.variable("VOICE_STT_GPU", "L4"),
    cpu=2.0,
    memory=4096,
    max_containers=10,
    enable_memory_snapshot=True,
    **_SERVICE,
)
@modal.concurrent(max_inputs=32, target_inputs=16)
class SttService:
    """Speech to text. A caller's utterance is one short request."""

    @modal.enter(snap=True)
    def import_all(self) -> None:
        shared.warm_imports()

    @modal.asgi_app(requires_proxy_auth=True)
    def web(self) -> FastAPI:
        return shared.service("stt", {"models.stt": STT})

    @modal.exit()
    def keep(self) -> None:
        shared.keep_weights()


@app.cls(
    image=shared.image(*(["coqui"] if TTS.startswith("xtts") else []), cuda=True),
    gpu=shared.variable("VOICE_TTS_GPU", "L4"),
    cpu=2.0,
    memory=8192,
    max_containers=10,
    enable_memory_snapshot=True,
    **_SERVICE,
)
@modal.concurrent(max_inputs=16, target_inputs=8)
class TtsService:
    """Text to speech. A clause is one streamed request."""

    @modal.enter(snap=True)
    def import_all(self) -> None:
        shared.warm_imports()

    @modal.asgi_app(requires_proxy_auth=True)
    def web(self) -> FastAPI:
        return shared.service("tts", {"models.tts": TTS})

    @modal.exit()
    def keep(self) -> None:
        shared.keep_weights()


@app.cls(
    image=shared.image(cuda=True, packages=["vllm"])
    if LLM.startswith("vllm:")
    else shared.image("transformers"),
    gpu=shared.variable("VOICE_LLM_GPU", "L40S"),
    cpu=4.0,
    memory=32_768,
    max_containers=4,
    **_SERVICE,
)
@modal.concurrent(max_inputs=64, target_inputs=32)
class LlmService:
    """The language model: vLLM on this container's loopback, and the service in front of it.

    Without a memory snapshot: one of a process with a GPU is an alpha feature of Modal's, and vLLM is another process.
    """

    @modal.enter()
    def start(self) -> None:
        shared.warm_imports()
        self.vllm: subprocess.Popen[bytes] | None = None
        back_end, _, model = LLM.partition(":")
        if back_end == "vllm":
            self.vllm = shared.start_vllm(model, _START_S - shared.MINUTE_S)
            shared.keep_weights()

    @modal.asgi_app(requires_proxy_auth=True)
    def web(self) -> FastAPI:
        settings: dict[str, Any] = {"models.llm": LLM}
        if self.vllm is not None:
            settings["endpoint.base_url"] = shared.VLLM_URL
        return shared.service("llm", settings)

    @modal.exit()
    def stop(self) -> None:
        if self.vllm is not None:
            shared.end_process(self.vllm)
        shared.keep_weights()


@app.cls(
    image=shared.image("phone"),
    env=shared.passed_on("VOICE_STT_URL", "VOICE_LLM_URL", "VOICE_TTS_URL"),
    cpu=2.0,
    memory=2048,
    secrets=[shared.SERVICE_SECRET, shared.PROXY_SECRETS, modal.Secret.from_name("antiphon")],
    volumes=shared.VOLUMES,
    min_containers=_WARM,
    # Webhook and stream of a phone call, and a page that comes back, must meet the same process.
    max_containers=1,
    scaledown_window=shared.SCALEDOWN_S,
    timeout=shared.CALL_S + 10 * shared.MINUTE_S,
    startup_timeout=_START_S,
    enable_memory_snapshot=True,
)
@modal.concurrent(max_inputs=128)
class OrchestratorService:
    """The server itself: websockets, page, phone. Only voice activity and end of turn are computed here."""

    @modal.enter(snap=True)
    def import_all(self) -> None:
        shared.warm_imports()

    @modal.enter()
    def find_services(self) -> None:
        """Other addresses than this app's own may be given, for instance of services on one's own machines."""
        own = {"stt": SttService, "llm": LlmService, "tts": TtsService}
        self.urls: dict[str, str] = {}
        for kind, service in own.items():
            given = os.environ.get(f"VOICE_{kind.upper()}_URL")
            self.urls[kind] = given or service().web.get_web_url()
        shared.until_ready(self.urls, _START_S - shared.MINUTE_S)

    @modal.asgi_app()
    def web(self) -> FastAPI:
        from antiphon.config import load
        from antiphon.models.store import WeightStore
        from antiphon.server.app import create_app

        settings = {**shared.LIMITS, **shared.client_options(self.urls)}
        return create_app(load({**settings, "server.max_calls": 64}), WeightStore())

"""The phone bot: Twilio's calls, with Whisper in the same container and the other models at their own apps.

    modal serve deploy/modal/phone_bot.py     # while developing
    modal deploy deploy/modal/phone_bot.py

Deploy phone_vllm.py and phone_xtts.py first, and put their addresses into the secret `phone-bot` as VLLM_BASE_URL and
XTTS_BASE_URL, beside the variables of Twilio's account. Then set the number's webhook to this app's address.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import antiphon_modal as shared
import modal

if TYPE_CHECKING:
    from fastapi import FastAPI

app = modal.App("phone-bot")

STT = shared.variable("PHONE_STT", "faster-whisper:large-v3-turbo")
_NEEDED = [
    "TWILIO_AUTH_TOKEN",
    "VLLM_BASE_URL",
    "VLLM_API_KEY",
    "XTTS_BASE_URL",
    shared.SERVICE_TOKEN,
]


@app.cls(
    image=shared.image("phone", "faster-whisper", cuda=True),
    gpu=shared.variable("PHONE_STT_GPU", "T4"),
    cpu=2.0,
    memory=4096,
    env=shared.passed_on("PHONE_STT"),
    secrets=[modal.Secret.from_name("phone-bot", required_keys=_NEEDED)],
    volumes=shared.VOLUMES,
    min_containers=int(shared.variable("PHONE_WARM", "0")),
    max_containers=1,  # a call's webhook and its stream must meet the same process
    scaledown_window=shared.SCALEDOWN_S,
    timeout=shared.CALL_S + 10 * shared.MINUTE_S,
    startup_timeout=15 * shared.MINUTE_S,
    enable_memory_snapshot=True,
)
@modal.concurrent(max_inputs=128)
class PhoneBot:
    @modal.enter(snap=True)
    def import_all(self) -> None:
        shared.warm_imports()

    @modal.asgi_app()
    def web(self) -> FastAPI:
        from antiphon.config import load
        from antiphon.models.store import WeightStore
        from antiphon.server.app import create_app

        # VLLM_BASE_URL, XTTS_BASE_URL and TWILIO_* are read by their own names.
        settings = {
            **shared.LIMITS,
            "models.stt": STT,
            "models.llm": "vllm",
            "models.tts": "xtts-server",
            "models.options.xtts-server.token": os.environ[shared.SERVICE_TOKEN],
            "endpoint.api_key": os.environ["VLLM_API_KEY"],
        }
        return create_app(load(settings), WeightStore())

    @modal.exit()
    def keep(self) -> None:
        shared.keep_weights()

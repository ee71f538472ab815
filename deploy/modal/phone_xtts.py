"""The phone bot's voice as an app of its own: XTTS v2 by the API of coqui's streaming server.

    modal deploy deploy/modal/phone_xtts.py
    XTTS_BASE_URL=https://WORKSPACE--self-hosted-xtts-serve.modal.run

The licence of XTTS's weights does not allow commercial use; `PHONE_TTS=kokoro` deploys a voice whose does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import antiphon_modal as shared
import modal

if TYPE_CHECKING:
    from fastapi import FastAPI

app = modal.App("self-hosted-xtts")

TTS = shared.variable("PHONE_TTS", "xtts")


@app.function(
    image=shared.image(
        *(["coqui"] if TTS.startswith("xtts") else []),
        cuda=True,
        variables={"COQUI_TOS_AGREED": "1"},
    ),
    gpu=shared.variable("PHONE_TTS_GPU", "T4"),
    cpu=2.0,
    memory=8192,
    env=shared.passed_on("PHONE_TTS"),
    secrets=[modal.Secret.from_name("phone-bot", required_keys=[shared.SERVICE_TOKEN])],
    volumes=shared.VOLUMES,
    scaledown_window=shared.SCALEDOWN_S,
    timeout=10 * shared.MINUTE_S,
    startup_timeout=15 * shared.MINUTE_S,
    max_containers=1,
)
@modal.concurrent(max_inputs=16)
@modal.asgi_app()
def serve() -> FastAPI:
    return shared.service("tts", {"models.tts": TTS})

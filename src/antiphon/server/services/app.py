"""The ASGI application of a model service: one kind of model, behind every protocol that clients of that kind speak.

The port answers at once; the model loads meanwhile and `/ready` says how far it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from antiphon.audio import decoders
from antiphon.config import Settings
from antiphon.errors import AntiphonError, ConfigError, ModelError
from antiphon.models.pool import ModelSet
from antiphon.models.ports import Kind, ModelStatus, WeightSource
from antiphon.observe.metrics import watch_loop_lag
from antiphon.server import health
from antiphon.server.limits import BodyLimit
from antiphon.server.loading import check_models, model_set
from antiphon.server.openai_http import LLM_PREFIX, chat, listing, speech, transcriptions
from antiphon.server.openai_http.work import Places
from antiphon.server.refusal import Refused, answer_http_error, answer_refused
from antiphon.server.security import Gate, authorize_or_local
from antiphon.server.services import kyutai, llm_socket, moshi_stt, moshi_tts, xtts
from antiphon.server.services.streams import Streams
from antiphon.server.services.token import hide_tokens
from antiphon.server.services.wyoming import WyomingServer, check_peers
from antiphon.server.tuning import tune_process

log = logging.getLogger(__name__)

OnChange = Callable[[ModelStatus], None]

KINDS: Mapping[Kind, tuple[Kind, ...]] = {
    Kind.STT: (Kind.VAD, Kind.STT),  # who hears must know where speech is
    Kind.TTS: (Kind.TTS,),
    Kind.LLM: (Kind.LLM,),
}
"""Kind of service -> the models that it loads."""
_OPENAI: Mapping[Kind, APIRouter] = {
    Kind.STT: transcriptions.router,
    Kind.TTS: speech.router,
    Kind.LLM: chat.router,
}
_OTHERS: Mapping[Kind, tuple[APIRouter, ...]] = {
    Kind.STT: (moshi_stt.router, kyutai.router),
    Kind.TTS: (moshi_tts.router, kyutai.router, kyutai.voices, xtts.router),
    Kind.LLM: (llm_socket.router, kyutai.router),
}


def create_service(
    settings: Settings,
    kind: Kind,
    weights: WeightSource,
    *,
    on_model: OnChange | None = None,
    on_ready: Callable[[AntiphonError | None], None] | None = None,
) -> FastAPI:
    """`on_model`: told of each model's progress. `on_ready`: told once, with the error when nothing can be served.

    Raises ConfigError for another kind than `KINDS` has, and for settings that cannot be.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no service of kind {kind}; use stt, tts or llm")
    check_models(settings, KINDS[kind])
    check_peers(settings.server)
    app = FastAPI(title=f"Antiphon {kind} service", version=version("antiphon"), lifespan=_lifespan)
    app.state.settings = settings
    app.state.kind = kind
    app.state.weights = weights
    app.state.gate = Gate(settings)
    app.state.places = Places(settings.server.max_requests)
    app.state.on_model = on_model or _log_model
    app.state.on_ready = on_ready
    app.add_middleware(BodyLimit, settings=settings.server)
    app.add_exception_handler(Refused, answer_refused)
    for error in (HTTPException, RequestValidationError):
        app.add_exception_handler(error, answer_http_error)
    app.include_router(health.router)
    app.include_router(_OPENAI[kind], prefix="/v1", tags=["openai"])
    app.include_router(listing.router, prefix="/v1", tags=["openai"])
    if kind is Kind.LLM:
        app.include_router(chat.router, prefix=LLM_PREFIX, include_in_schema=False)
        app.include_router(listing.llm_router, prefix=LLM_PREFIX, include_in_schema=False)
    for router in _OTHERS[kind]:
        app.include_router(router)
    _add_metrics(app)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addFilter(hide_tokens)
    return app


def _add_metrics(app: FastAPI) -> None:
    @app.get("/metrics", include_in_schema=False, dependencies=[Depends(authorize_or_local)])
    async def metrics(request: Request) -> Response:
        streams: Streams = request.app.state.calls
        body, content_type = streams.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings, kind = app.state.settings, app.state.kind
    models = model_set(settings, app.state.weights, KINDS[kind])
    app.state.calls = streams = Streams(settings, models)
    decoders.shared.warm()
    loading = asyncio.create_task(_load(app, models), name="load models")
    lag = asyncio.create_task(watch_loop_lag(streams.metrics), name="loop lag")
    wyoming = None if kind is Kind.LLM else WyomingServer(streams, kind)
    app.state.wyoming_port = await wyoming.listen() if wyoming else 0
    try:
        yield
    finally:
        await streams.drain(0)
        if wyoming is not None:
            await wyoming.close()
        loading.cancel()
        lag.cancel()
        await asyncio.gather(loading, lag, return_exceptions=True)
        await models.close()


async def _load(app: FastAPI, models: ModelSet) -> None:
    error: AntiphonError | None = None
    try:
        await models.load(app.state.on_model)
        tune_process()
    except AntiphonError as failed:
        error = failed
    except Exception as bug:
        log.exception("loading the model")
        error = ModelError(f"the model could not be loaded: {bug!r}")
    if app.state.on_ready is not None:
        app.state.on_ready(error)
    elif error is not None:
        log.error("models: %s", error)


def _log_model(status: ModelStatus) -> None:
    level = logging.WARNING if status.error else logging.INFO
    text: Any = status.error or status.detail
    log.log(level, "%s %s: %s: %s", status.kind, status.name, status.state, text)

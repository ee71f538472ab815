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
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Kind, ModelStatus, WeightSource
from antiphon.observe.metrics import watch_loop_lag
from antiphon.protocols.llm_socket import server as llm_socket
from antiphon.protocols.moshi import server as moshi_server
from antiphon.protocols.moshi import stt_routes, tts_routes
from antiphon.protocols.moshi.server import hide_tokens
from antiphon.protocols.openai_http import server as openai_http_server
from antiphon.protocols.openai_http.server import LLM_PREFIX
from antiphon.protocols.wyoming.server import WyomingServer, check_peers
from antiphon.protocols.xtts import server as xtts
from antiphon.server import health
from antiphon.server.body_limit import BodyLimit
from antiphon.server.gc_tuning import tune_process
from antiphon.server.http_errors import RequestRefused, answer_http_error, answer_refused
from antiphon.server.model_loading import check_models, model_set
from antiphon.server.model_streams import ModelStreams
from antiphon.server.request_jobs import RequestSlots
from antiphon.server.security import Gate, authorize_or_local

log = logging.getLogger(__name__)

OnChange = Callable[[ModelStatus], None]

KINDS: Mapping[Kind, tuple[Kind, ...]] = {
    Kind.STT: (Kind.VAD, Kind.STT),  # who hears must know where speech is
    Kind.TTS: (Kind.TTS,),
    Kind.LLM: (Kind.LLM,),
}
"""Kind of service -> the models that it loads."""
_OPENAI: Mapping[Kind, APIRouter] = {
    Kind.STT: openai_http_server.transcription_router,
    Kind.TTS: openai_http_server.speech_router,
    Kind.LLM: openai_http_server.chat_router,
}
_OTHERS: Mapping[Kind, tuple[APIRouter, ...]] = {
    Kind.STT: (stt_routes.stt_router, moshi_server.router),
    Kind.TTS: (tts_routes.tts_router, moshi_server.router, moshi_server.voices, xtts.router),
    Kind.LLM: (llm_socket.router, moshi_server.router),
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
    app.state.places = RequestSlots(settings.server.max_requests)
    app.state.on_model = on_model or _log_model
    app.state.on_ready = on_ready
    app.add_middleware(BodyLimit, settings=settings.server)
    app.add_exception_handler(RequestRefused, answer_refused)
    for error in (HTTPException, RequestValidationError):
        app.add_exception_handler(error, answer_http_error)
    app.include_router(health.router)
    app.include_router(_OPENAI[kind], prefix="/v1", tags=["openai"])
    app.include_router(openai_http_server.listing_router, prefix="/v1", tags=["openai"])
    if kind is Kind.LLM:
        app.include_router(
            openai_http_server.chat_router, prefix=LLM_PREFIX, include_in_schema=False
        )
        app.include_router(
            openai_http_server.llm_listing_router, prefix=LLM_PREFIX, include_in_schema=False
        )
    for router in _OTHERS[kind]:
        app.include_router(router)
    _add_metrics(app)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addFilter(hide_tokens)
    return app


def _add_metrics(app: FastAPI) -> None:
    @app.get("/metrics", include_in_schema=False, dependencies=[Depends(authorize_or_local)])
    async def metrics(request: Request) -> Response:
        streams: ModelStreams = request.app.state.calls
        body, content_type = streams.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings, kind = app.state.settings, app.state.kind
    models = model_set(settings, app.state.weights, KINDS[kind])
    app.state.calls = streams = ModelStreams(settings, models)
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

"""The ASGI application: routes, the page, the models' life, and an orderly end.

The port answers at once; the models load meanwhile and `/ready` says how far they are.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from antiphon.audio import decoders
from antiphon.config import Settings
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import AntiphonError, ConfigError, ModelError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import ModelStatus, WeightSource
from antiphon.observe import otel_spans
from antiphon.observe.metrics import watch_loop_lag
from antiphon.protocols.audiosocket.server import AudioSocketServer, check_peers
from antiphon.protocols.browser import client_options
from antiphon.protocols.browser import server as browser
from antiphon.protocols.browser.reconnect import ResumableCalls
from antiphon.protocols.openai_http import server as openai_http
from antiphon.protocols.openai_http import speech_to_speech
from antiphon.protocols.realtime import secret_routes, unmute_server, webrtc_calls
from antiphon.protocols.realtime import server as realtime
from antiphon.protocols.realtime.webrtc_calls import RtcCalls
from antiphon.protocols.twilio import server as twilio_server
from antiphon.protocols.twilio import webhooks
from antiphon.protocols.twilio.phone_services import Phone, PhoneServices, open_phone_services
from antiphon.server import health, shared_socket
from antiphon.server.admission import Calls
from antiphon.server.body_limit import BodyLimit
from antiphon.server.gc_tuning import tune_process
from antiphon.server.http_errors import RequestRefused, answer_http_error, answer_refused
from antiphon.server.load_shedding import watch
from antiphon.server.model_loading import check_models, model_set, rehearse
from antiphon.server.recordings import close_to_others
from antiphon.server.security import Gate, authorize_or_local
from antiphon.server.tools import ToolSources

log = logging.getLogger(__name__)

_PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

OnChange = Callable[[ModelStatus], None]


def create_app(
    settings: Settings,
    weights: WeightSource,
    *,
    on_model: OnChange | None = None,
    on_ready: Callable[[AntiphonError | None], None] | None = None,
    on_call_end: Callable[[list[TurnRecord]], None] | None = None,
) -> FastAPI:
    """`on_model`: told of each model's progress. `on_ready`: told once, with the error when no call can be served.

    Raises ConfigError for settings that name a model that there is not.
    """
    check_models(settings)
    app = FastAPI(
        title="Antiphon",
        version=version("antiphon"),
        summary="Self-hosted voice agent server",
        lifespan=_lifespan,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.gate = Gate(settings)
    app.state.phone = Phone(settings)
    app.state.weights = weights
    app.state.tools = ToolSources(settings.tools)
    app.state.seats = ResumableCalls(settings.server.max_parked)
    app.state.rtc = RtcCalls(settings.server.max_calls, settings.realtime.rtc_setup_s)
    app.state.on_model = on_model or _log_model
    app.state.on_ready = on_ready
    app.state.on_call_end = on_call_end
    app.add_middleware(BodyLimit, settings=settings.server)
    if settings.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.server.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Antiphon-Result", "Location"],
        )
    app.add_exception_handler(RequestRefused, answer_refused)
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer_http_error)
    _add_routes(app, settings)
    _add_metrics(app)
    _add_page(app)
    return app


def _add_routes(app: FastAPI, settings: Settings) -> None:
    check_peers(settings.phone)
    app.include_router(health.router)
    app.include_router(speech_to_speech.speech_to_speech_router)
    app.include_router(browser.router)
    app.include_router(client_options.options_router)
    app.include_router(realtime.router)
    app.include_router(webrtc_calls.router)
    unmute_server.include(app)
    openai_http.include(app)
    app.include_router(secret_routes.router, prefix="/v1", tags=["openai"])
    app.include_router(twilio_server.media_router)
    app.include_router(shared_socket.router)
    webhooks.include(app)


def _add_metrics(app: FastAPI) -> None:
    @app.get("/metrics", include_in_schema=False, dependencies=[Depends(authorize_or_local)])
    async def metrics(request: Request) -> Response:
        calls: Calls = request.app.state.calls
        body, content_type = calls.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})


def _add_page(app: FastAPI) -> None:
    folder = Path(str(resources.files("antiphon") / "web"))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(
            folder / "index.html",
            headers={"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"},
        )

    app.mount("/static", StaticFiles(directory=folder), name="static")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    models = model_set(app.state.settings, app.state.weights)
    spans = otel_spans.setup() if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else None
    app.state.calls = calls = Calls(
        app.state.settings, models, spans=spans, on_end=app.state.on_call_end
    )
    await asyncio.to_thread(close_to_others, app.state.settings)
    tools: ToolSources = app.state.tools
    calls.tools = tools
    tools.start()
    decoders.shared.warm()
    loading = asyncio.create_task(_load(app, models), name="load models")
    lag = asyncio.create_task(watch_loop_lag(calls.metrics), name="loop lag")
    room = asyncio.create_task(watch(calls.load_shedder, models), name="load shedding")
    phone = open_phone_services(app, calls)
    app.state.audiosocket = audiosocket = await _open_audiosocket(calls, phone)
    try:
        yield
    finally:
        await calls.drain(0)
        await app.state.rtc.close()
        await audiosocket.close()
        await phone.close()
        loading.cancel()
        lag.cancel()
        room.cancel()
        await asyncio.gather(loading, lag, room, return_exceptions=True)
        await tools.close()
        await models.close()
        await asyncio.to_thread(calls.recordings.close)
        if spans is not None:
            await asyncio.to_thread(spans.shutdown)


async def _open_audiosocket(calls: Calls, phone: PhoneServices) -> AudioSocketServer:
    """Listens where the settings say so. A port that cannot be had is told in the log: the rest goes on."""
    audiosocket = AudioSocketServer(calls, phone.log)
    try:
        await audiosocket.listen()
    except ConfigError as error:
        log.error("%s", error)
    return audiosocket


async def _load(app: FastAPI, models: ModelSet) -> None:
    error: AntiphonError | None = None
    try:
        await models.load(app.state.on_model)
        await app.state.tools.settled()  # the first call is to have them all
        tune_process()
    except AntiphonError as failed:
        error = failed
    except Exception as bug:
        log.exception("loading the models")
        error = ModelError(f"the models could not be loaded: {bug!r}")
    if app.state.on_ready is not None:
        app.state.on_ready(error)
    elif error is not None:
        log.error("models: %s", error)
    if error is None:
        await rehearse(models, app.state.settings)


def _log_model(status: ModelStatus) -> None:
    if status.error:
        log.warning("%s %s: %s: %s", status.kind, status.name, status.state, status.error)
    else:
        log.info("%s %s: %s %s", status.kind, status.name, status.state, status.detail)

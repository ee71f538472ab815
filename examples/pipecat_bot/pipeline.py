"""A stock Pipecat pipeline for one telephone call: FastAPI websocket transport, Twilio serializer, Silero, and either
plain silence or Smart Turn for the end of a turn. Written as Pipecat's own examples are; which services speak and think
is said by the caller of `hold_call`. Pipecat below 2.0.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_stop import (
    SpeechTimeoutUserTurnStopStrategy,
    TurnAnalyzerUserTurnStopStrategy,
)
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

PROMPT = (
    "You are a friendly voice assistant. You are heard, not read: answer in one or two short "
    "spoken sentences, in plain words, without lists, markup, code or emoji."
)
"""Antiphon's own default."""
VAD_STOP_S = 0.2
"""Pipecat's default."""

Services = tuple[Any, Any, Any]


def stop_strategy(turn: str, silence_s: float) -> Any:
    """`smart`: Smart Turn, as Pipecat's own examples have it. `vad`: this much silence, all in all."""
    if turn == "smart":
        return TurnAnalyzerUserTurnStopStrategy(turn_analyzer=LocalSmartTurnAnalyzerV3())
    return SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=silence_s - VAD_STOP_S)


async def start_of(socket_: WebSocket) -> dict[str, Any]:
    """The `start` message of a media stream."""
    while True:
        message = json.loads(await socket_.receive_text())
        if message["event"] == "start":
            start: dict[str, Any] = message["start"]
            return start


async def hold_call(
    socket_: WebSocket,
    services: Services,
    turn: str,
    silence_s: float,
    observers: list[Any],
    metrics: bool,
) -> None:
    """One call, from its `start` to its end."""
    start = await start_of(socket_)
    serializer = TwilioFrameSerializer(
        stream_sid=start["streamSid"],
        call_sid=start["callSid"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=socket_,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
        ),
    )
    stt, llm, tts = services
    pair = LLMContextAggregatorPair(
        LLMContext([{"role": "system", "content": PROMPT}]),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=VAD_STOP_S)),
            user_turn_strategies=UserTurnStrategies(stop=[stop_strategy(turn, silence_s)]),
        ),
    )
    steps = [transport.input(), stt, pair.user(), llm, tts, transport.output(), pair.assistant()]
    worker = PipelineWorker(
        Pipeline(steps),
        params=PipelineParams(
            audio_in_sample_rate=8_000,
            audio_out_sample_rate=8_000,
            enable_metrics=metrics,
            enable_usage_metrics=metrics,
        ),
        enable_rtvi=False,
        observers=observers,
        idle_timeout_secs=None,
    )

    @transport.event_handler("on_client_disconnected")
    async def gone(_transport: Any, _client: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def application(
    services: Callable[[], Services],
    turn: str = "smart",
    silence_s: float = 0.6,
    observers: Callable[[], list[Any]] = list,
    metrics: bool = False,
) -> FastAPI:
    """Takes calls at `/media-stream`. `services`: makes those of one call; `observers`: likewise."""
    app = FastAPI()

    @app.websocket("/media-stream")
    async def media_stream(socket_: WebSocket) -> None:
        await socket_.accept()
        try:
            await hold_call(socket_, services(), turn, silence_s, observers(), metrics)
        except Exception as error:  # noqa: BLE001 - one call's end must not end the others
            print(f"call ended: {error!r}", file=sys.stderr)

    return app


async def serve(app: FastAPI, port: int, debug_of: str = "") -> None:
    """On this machine only, until told to stop. `port` 0: any free one, which is told on stderr.

    `debug_of`: a module whose log is shown whole; of the others, only errors are.
    """
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    if debug_of:
        logger.add(sys.stderr, level="DEBUG", filter=debug_of, format="{message}")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws_per_message_deflate=False))
    print(f"Ready: http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    await server.serve([listener])

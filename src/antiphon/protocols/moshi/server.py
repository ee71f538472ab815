"""What the routes of moshi-server share: its token, its websocket, its description, and voices from clips."""

from __future__ import annotations

import asyncio
import logging
import re
from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from antiphon.errors import ProtocolError, told
from antiphon.models.ports import Kind
from antiphon.protocols.moshi import codec
from antiphon.server.http_errors import RequestRefused
from antiphon.server.model_streams import ModelStreams
from antiphon.server.request_jobs import finish, job_for, openai_errors
from antiphon.server.security import Principal, authorize
from antiphon.server.voice_cloning import MAX_CLIP_BYTES, learn, tensors

_HEADER = "kyutai-api-key"
_QUERY = "auth_id"
_SHOWN = re.compile(r"(auth_id=)[^&\s\"]*")


async def authorize_moshi(connection: HTTPConnection) -> Principal:
    """`kyutai-api-key`, else `auth_id`, counts as a bearer token. Raises Refused."""
    key = connection.headers.get(_HEADER) or connection.query_params.get(_QUERY, "")
    if not key or "authorization" in connection.headers:
        return await authorize(connection)
    bearer = (b"authorization", b"Bearer " + key.encode("latin-1", "replace"))
    scope = {**connection.scope, "headers": [*connection.scope["headers"], bearer]}
    return await authorize(HTTPConnection(scope))


MoshiAdmitted = Annotated[Principal, Depends(authorize_moshi)]
"""A route's parameter: the request is let in, or answered with 401, 403 or 429."""


def hide_tokens(record: logging.LogRecord) -> bool:
    """A filter of log records: a web server writes queries down."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _SHOWN.sub(r"\1...", argument) if isinstance(argument, str) else argument
            for argument in record.args
        )
    return True


_SEND_S = 10.0
"""A client that takes nothing for so long is gone."""
_NORMAL, _UNSUPPORTED, _BUSY = 1000, 1003, 1013


class MoshiPeer:
    """A client, once its websocket has been accepted."""

    def __init__(self, socket: WebSocket, idle_s: float) -> None:
        """`idle_s`: the longest silence of the client."""
        self._socket = socket
        self._idle_s = idle_s

    async def receive(self) -> codec.Message | None:
        """The next message; None when the client is gone or has been silent too long. Raises ProtocolError.

        A text frame is text, and a binary frame of one zero byte the end of it, as older clients have it.
        """
        try:
            async with asyncio.timeout(self._idle_s):
                frame = await self._socket.receive()
        except TimeoutError:
            return None
        if frame["type"] == "websocket.disconnect":
            return None
        if (text := frame.get("text")) is not None:
            return codec.Text(text)
        data: bytes = frame.get("bytes") or b""
        return codec.Eos() if data == b"\0" else codec.decode(data)

    async def until_gone(self) -> None:
        """The client has no more to say: whatever comes is ignored, however long it is silent."""
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def send(self, *messages: codec.Message) -> None:
        """Raises WebSocketDisconnect or TimeoutError when the client is gone."""
        for message in messages:
            await self.send_bytes(codec.encode(message))

    async def send_bytes(self, data: bytes) -> None:
        """Raises like `send`."""
        async with asyncio.timeout(_SEND_S):
            try:
                await self._socket.send_bytes(data)
            except RuntimeError:  # Starlette's word for a socket that was closed meanwhile
                raise WebSocketDisconnect(1006) from None

    async def close(self, error: Exception | None = None, *, said: bool = True) -> None:
        """The end. `said` False: the format has no way to name an error."""
        if self._socket.client_state is not WebSocketState.CONNECTED:
            return
        code = _NORMAL
        try:
            if error is not None:
                code = _UNSUPPORTED if isinstance(error, ProtocolError) else _BUSY
                if said:
                    await self.send(codec.Error(told(error)))
            async with asyncio.timeout(_SEND_S):
                await self._socket.close(code)
        except (WebSocketDisconnect, RuntimeError, TimeoutError, OSError):
            pass


router = APIRouter(tags=["moshi"])
voices = APIRouter(tags=["moshi"])

_PATHS = {Kind.STT: "/api/asr-streaming", Kind.TTS: "/api/tts_streaming", Kind.LLM: "/ws"}


@router.get("/api/build_info")
async def build_info() -> dict[str, str]:
    """Clients poll it to see whether the service is there."""
    return {"name": "antiphon", "version": version("antiphon")}


@router.get("/api/modules_info")
async def modules_info(request: Request, principal: MoshiAdmitted) -> list[dict[str, str]]:
    """One module, with its places; numbers as text, as the original has them."""
    streams: ModelStreams = request.app.state.calls
    kind: Kind = request.app.state.kind
    return [
        {
            "type": kind.value,
            "path": _PATHS[kind],
            "used_slots": str(len(streams)),
            "total_slots": str(streams.settings.server.max_calls),
        }
    ]


@voices.post("/api/voice", response_model=None)
async def voice(request: Request, principal: MoshiAdmitted) -> Response:
    """A clip -> a `Voice` message, to be sent unchanged before the text. Unlike the original it wants the token."""
    with openai_errors():
        clip = await request.body()
        if len(clip) > MAX_CLIP_BYTES:
            raise RequestRefused(
                413, f"the clip is over {MAX_CLIP_BYTES >> 20} MiB; send 10 s of speech"
            )
    async with job_for(request, principal) as job:

        async def work() -> Response:
            numbers: list[Any] = tensors(await learn(job.models, clip, job.work()))[
                "speaker_embedding"
            ]
            message = {"type": "Voice", "embeddings": numbers, "shape": [1, len(numbers)]}
            return Response(msgspec.msgpack.encode(message), media_type="application/msgpack")

        return await finish(request, work())

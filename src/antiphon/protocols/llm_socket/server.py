"""`/ws` of the language model service: a prompt in, its answer streamed out.

The client sends `{"type": "generate", "prompt": ...}` (or `messages`), as JSON text, and gets `token` messages, the
last one `finished`, then `complete`; docs/howto/services.md has the fields. Several prompts one after the other on one
connection; `{"type": "stop"}` breaks an answer off.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, WebSocket
from starlette.websockets import WebSocketDisconnect

from antiphon.errors import AntiphonError, ProtocolError, told
from antiphon.models.ports import LlmRequest, Message, Usage
from antiphon.server.model_streams import ModelStream, ModelStreams
from antiphon.server.security import authorize

log = logging.getLogger(__name__)
router = APIRouter(tags=["llm"])

_IDLE_S = 600.0
_SEND_S = 10.0
_MAX_CHARS = 400_000
_ROLES = ("system", "user", "assistant", "tool")


class _Turn(msgspec.Struct):
    role: str
    content: str


class _Ask(msgspec.Struct):
    type: str
    prompt: str = ""
    messages: list[_Turn] = msgspec.field(default_factory=list)
    temperature: float | None = None
    max_tokens: int = 1_024
    cumulative: bool = False
    """Each `text` is the whole answer so far."""


@router.websocket("/ws", dependencies=[Depends(authorize)])
async def generate(socket: WebSocket) -> None:
    """Until the client closes, or is silent for ten minutes. A request that fails is answered with `error`."""
    streams: ModelStreams = socket.app.state.calls
    await socket.accept()
    try:
        with streams.one("llm") as place:
            await _Dialogue(socket, streams, place).run()
    except AntiphonError as error:  # no place: later requests would fare no better
        await _send(socket, {"type": "error", "message": told(error)})
        await socket.close(1013)
    except (WebSocketDisconnect, TimeoutError, OSError):
        log.info("an llm client left")


class _Dialogue:
    def __init__(self, socket: WebSocket, streams: ModelStreams, place: ModelStream) -> None:
        self._socket = socket
        self._streams = streams
        self._place = place
        self._answering: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises WebSocketDisconnect, TimeoutError."""
        try:
            while True:
                text = await self._receive()
                if text is None:
                    return
                try:
                    await self._obey(_read(text))
                except ProtocolError as error:
                    await _send(self._socket, {"type": "error", "message": str(error)})
        finally:
            await self._stop()

    async def _receive(self) -> str | None:
        """The next message; None when the client is gone. An answer under way keeps the connection."""
        while True:
            try:
                async with asyncio.timeout(_IDLE_S):
                    frame = await self._socket.receive()
            except TimeoutError:
                if self._answering is None or self._answering.done():
                    await self._socket.close(1000)
                    return None
                continue
            if frame["type"] == "websocket.disconnect":
                return None
            data: str | None = frame.get("text")
            return (
                data if data is not None else (frame.get("bytes") or b"").decode(errors="replace")
            )

    async def _obey(self, ask: _Ask) -> None:
        if ask.type == "stop":
            await self._stop()
        elif self._answering is not None and not self._answering.done():
            raise ProtocolError("an answer is under way: wait for `complete`, or send `stop`")
        else:
            self._answering = asyncio.create_task(self._answer(self._request(ask), ask.cumulative))

    async def _stop(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)

    def _request(self, ask: _Ask) -> LlmRequest:
        agent = self._streams.settings.agent
        turns = [Message(turn.role, turn.content) for turn in ask.messages]
        if ask.prompt:
            turns.append(Message("user", ask.prompt))
        return LlmRequest(
            tuple(turns),
            self._place.name,
            max_tokens=ask.max_tokens,
            temperature=agent.temperature if ask.temperature is None else ask.temperature,
        )

    async def _answer(self, request: LlmRequest, cumulative: bool) -> None:
        said, reason, usage = "", "stop", Usage()
        try:
            deltas = self._streams.models.generate(request, work=self._place.work())
            async with aclosing(deltas):
                async for delta in deltas:
                    reason, usage = delta.finish or reason, delta.usage or usage
                    if delta.text:
                        said += delta.text
                        await self._token(said if cumulative else delta.text, finished=False)
        except AntiphonError as error:
            await _send(self._socket, {"type": "error", "message": told(error, self._place.name)})
            return
        except (WebSocketDisconnect, TimeoutError, OSError):
            return  # the reader will find out
        await self._token(said if cumulative else "", finished=True)
        await _send(self._socket, {"type": "complete", "finish_reason": reason, **_told(usage)})

    async def _token(self, text: str, *, finished: bool) -> None:
        await _send(self._socket, {"type": "token", "text": text, "finished": finished})


def _told(usage: Usage) -> dict[str, Any]:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _read(text: str) -> _Ask:
    """Raises ProtocolError."""
    if len(text) > _MAX_CHARS:
        raise ProtocolError(f"the prompt is over {_MAX_CHARS} characters; shorten it")
    try:
        ask = msgspec.json.decode(text, type=_Ask)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(
            f'send {{"type": "generate", "prompt": ...}} as JSON: {error}'
        ) from None
    if ask.type not in ("generate", "stop"):
        raise ProtocolError(f"unknown type {ask.type[:40]!r}; send `generate` or `stop`")
    if ask.type == "generate" and not (ask.prompt or ask.messages):
        raise ProtocolError("there is neither `prompt` nor `messages`; send one of them")
    if wrong := [turn.role for turn in ask.messages if turn.role not in _ROLES]:
        raise ProtocolError(f"unknown role {wrong[0][:40]!r}; use {', '.join(_ROLES)}")
    if ask.max_tokens < 1:
        raise ProtocolError("max_tokens must be 1 or more")
    return ask


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    async with asyncio.timeout(_SEND_S):
        try:
            await socket.send_text(msgspec.json.encode(message).decode())
        except RuntimeError:  # closed meanwhile
            raise WebSocketDisconnect(1006) from None

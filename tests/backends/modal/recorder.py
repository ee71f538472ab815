"""A server on loopback in the place of Modal's own: it writes down what the real `modal deploy` asks for, and agrees.

It runs nothing and builds nothing. Whether Modal would accept what is asked is for the client's own checks and Modal.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpclib.server
import modal  # noqa: F401 - the generated code can only be imported after it
from google.protobuf.message import Message
from modal_proto import api_grpc, api_pb2

_PREFIXES = {
    "app_id": "ap",
    "class_id": "cs",
    "environment_id": "en",
    "function_id": "fu",
    "image_id": "im",
    "mount_id": "mo",
    "secret_id": "st",
    "volume_id": "vo",
}
_BUILDER = "2025.06"
_LIMIT_S = 120


class Recorder(api_grpc.ModalClientBase):
    """Answers each request with an empty message, in which only ids are filled in."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self._ids: Counter[str] = Counter()

    def of(self, kind: type[Message]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    def answer(self, request: Message, reply: Any) -> Any:
        self.requests.append(request)
        for field in reply.DESCRIPTOR.fields:
            if field.name in _PREFIXES:
                self._ids[field.name] += 1
                text = f"{_PREFIXES[field.name]}-{self._ids[field.name]}"
                setattr(reply, field.name, text)
            elif field.name == "exists":
                reply.exists = True
        if isinstance(reply, api_pb2.ImageGetOrCreateResponse):
            reply.result.status = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
        if isinstance(request, api_pb2.FunctionCreateRequest):
            reply.function.CopyFrom(request.function)
            reply.function_data.ranked_functions.add(function=request.function)
            reply.function_id = request.existing_function_id or reply.function_id
            reply.handle_metadata.function_name = request.function.function_name
            reply.handle_metadata.web_url = "https://example.modal.run"
        return reply


def _handler(reply_type: type[Message]) -> Callable[[Recorder, Any], Any]:
    async def handle(self: Recorder, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(self.answer(request, reply_type()))

    return handle


def _fill_in() -> None:
    """Every method of the service, with what it answers, as the generated code has them."""
    for name in Recorder.__abstractmethods__:
        setattr(Recorder, name, _handler(api_pb2.AppHeartbeatRequest))
    Recorder.__abstractmethods__ = frozenset()
    for path, known in Recorder().__mapping__().items():
        setattr(Recorder, path.rpartition("/")[2], _handler(known.reply_type))


_fill_in()


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[Recorder, dict[str, str]]]:
    """-> the recorder, and the variables with which Modal's client finds it."""
    recorder = Recorder()
    server = grpclib.server.Server([recorder])
    await server.start("127.0.0.1", 0)
    port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # grpclib has no other way
    variables = {
        "MODAL_SERVER_URL": f"http://127.0.0.1:{port}",
        "MODAL_TOKEN_ID": "ak-nobody",
        "MODAL_TOKEN_SECRET": "as-nothing",
        "MODAL_IMAGE_BUILDER_VERSION": _BUILDER,
        "MODAL_CONFIG_PATH": os.devnull,
    }
    try:
        yield recorder, variables
    finally:
        server.close()
        await server.wait_closed()


async def deploy(file: Path, **variables: str) -> tuple[Recorder, str]:
    """`modal deploy FILE` -> what it asked for, and what it printed."""
    async with recording() as (recorder, where):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "modal", "deploy", str(file)),
            env={**os.environ, **where, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = printed.decode()
        assert process.returncode == 0, text
        assert "deprecat" not in text.lower(), text
        return recorder, text

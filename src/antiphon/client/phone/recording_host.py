"""The carrier's store of recordings: a small HTTP server on loopback from which a voice server fetches what was said.

As Twilio's: a WAV file under the recording's URL, MP3 with `.mp3` added, 404 before the recording is ready.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import uvicorn

from antiphon.audio.encoding import CONTENT_TYPES, encode_file
from antiphon.audio.framing import Pcm16
from antiphon.client.phone.clips import RATE_HZ
from antiphon.errors import ProtocolError
from antiphon.server.lifecycle import listen

_START_S = 5.0
_MAX_RECORDINGS = 1_000
_Message = MutableMapping[str, Any]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C is the command's, not ours."""
        yield


class RecordingHost:
    """`async with RecordingHost() as host: url = host.keep(pcm)`."""

    def __init__(self, account_sid: str, not_yet: int = 0) -> None:
        """`not_yet`: so many requests for each recording are answered 404 first, as Twilio may do for a moment."""
        self.base_url = ""
        self._path = f"/2010-04-01/Accounts/{account_sid}/Recordings/"
        self._not_yet = not_yet
        self._kept: dict[str, Pcm16] = {}
        self._asked: dict[str, int] = {}
        config = uvicorn.Config(
            self._answer,
            log_config=None,
            access_log=False,
            interface="asgi3",
            lifespan="off",
            ws="none",
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RecordingHost:
        listener = listen("127.0.0.1", 0)
        self.base_url = "http://{}:{}".format(*listener.getsockname())
        self._task = asyncio.create_task(self._server.serve([listener]))
        try:
            async with asyncio.timeout(_START_S):
                await self._server.is_up.wait()
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, TimeoutError):
                raise ProtocolError(
                    "the recordings cannot be served: HTTP does not start"
                ) from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_START_S):
                    await asyncio.gather(self._task, return_exceptions=True)

    def keep(self, pcm: Pcm16) -> tuple[str, str]:
        """8 kHz samples -> the recording's identifier and its URL."""
        sid = "RE" + secrets.token_hex(16)
        if len(self._kept) >= _MAX_RECORDINGS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[sid] = pcm
        return sid, f"{self.base_url}{self._path}{sid}"

    async def _answer(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        path: str = scope.get("path", "")
        name, _, extension = path.removeprefix(self._path).partition(".")
        fmt = extension or "wav"
        found = self._kept.get(name) if path.startswith(self._path) else None
        asked = self._asked[name] = self._asked.get(name, 0) + 1 if found is not None else 0
        if found is None or asked <= self._not_yet or fmt not in ("wav", "mp3"):
            status, kind, body = 404, "text/plain", b"no such recording"
        else:
            status, kind = 200, CONTENT_TYPES[fmt]
            body = await asyncio.to_thread(encode_file, found, RATE_HZ, fmt)
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

"""A carrier of ours on a real loopback socket: answers REST requests by a script, keeps recordings, remembers all."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from antiphon.config.sections import PhoneSettings

SID = "AC" + "1" * 32
TOKEN = "secret-token"
CALL = "CA" + "2" * 32


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    form: dict[str, list[str]]
    auth: str

    def first(self, name: str) -> str:
        return self.form.get(name, [""])[0]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


NEVER = Answer(-1)
"""No answer at all."""
CUT = Answer(-2)
"""The connection is closed instead."""


def refusal(status: int, code: int, message: str = "no", **headers: str) -> Answer:
    body = {"code": code, "message": message, "status": status}
    return Answer(status, body, {name.replace("_", "-"): v for name, v in headers.items()})


@dataclass(slots=True)
class Carrier:
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)
    """Answers in order; after them every request succeeds."""
    files: dict[str, list[Answer]] = field(default_factory=dict)
    """Path -> answers in order, the last one for ever."""
    numbers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **changes: Any) -> PhoneSettings:
        given: dict[str, Any] = {
            "account_sid": SID,
            "auth_token": SecretStr(TOKEN),
            "from_number": "+15550199",
            "rest_base_url": self.url,
            **changes,
        }
        return PhoneSettings(**given)

    def _answer(self, asked: Asked) -> Answer:
        path = urlsplit(asked.path).path
        if path in self.files:
            answers = self.files[path]
            return answers.pop(0) if len(answers) > 1 else answers[0]
        if self.script:
            return self.script.pop(0)
        if "IncomingPhoneNumbers" in path:
            return Answer(200, {"incoming_phone_numbers": self.numbers})
        if path.endswith(f"/{SID}.json"):
            return Answer(200, {"sid": SID, "status": "active", "type": "Full"})
        if "Recordings" in path:
            return Answer(200, {"sid": "RE1", "status": "in-progress", "duration": None})
        return Answer(201, {"sid": CALL, "status": "queued", "answered_by": None})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines if line)}
            body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
            method, path, _ = first.split(" ")
            auth = headers.get("authorization", "").removeprefix("Basic ")
            form = parse_qs(body, keep_blank_values=True)
            asked = Asked(method, path, form, base64.b64decode(auth).decode())
            self.asked.append(asked)
            answer = self._answer(asked)
            if answer is NEVER:
                await reader.read()  # until the client gives up
            elif answer is not CUT:
                raw = isinstance(answer.body, bytes)
                data = answer.body if raw else json.dumps(answer.body).encode()
                if answer.body is None:
                    data = b""
                extra = "".join(f"{n}: {v}\r\n" for n, v in answer.headers.items())
                writer.write(
                    f"HTTP/1.1 {answer.status} x\r\nContent-Length: {len(data)}\r\n"
                    f"Connection: close\r\n{extra}\r\n".encode()
                    + data
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def carrier() -> AsyncIterator[Carrier]:
    found = Carrier()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await found.serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class Pauses:
    """Instead of waiting between attempts: how long it would have been."""

    taken_s: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.taken_s.append(seconds)

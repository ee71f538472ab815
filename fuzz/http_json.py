"""Wrong JSON, forms and queries for every HTTP route: `python -m fuzz.http_json --seconds 60 --seed 1`.

Requests that would be right are spoiled as in `fuzz.websockets`. Every one must get an answer below 500 (or 501 and
503, which say what there is not), and the server must write no traceback, go on answering others, and live.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from fuzz.mutations import mutated, value
from fuzz.target import Target, target
from fuzz.websockets import REALTIME

_ALLOWED = {"501", "503"}
_AT_A_TIME = 4
_MOST_TOLD = 20
_PROBE_EVERY = 100
_LIMIT_S = 30.0
_TURN = {"role": "user", "content": "Hello"}
_SESSION = REALTIME[0]["session"]
_XTTS = {
    "text": "Hi",
    "language": "en",
    "speaker_embedding": [0.0, 1.0],
    "gpt_cond_latent": [[0.0, 1.0]],
}


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    body: Any = None
    kind: str = "json"
    """`json`, `form` (of names and texts), `multipart` (with a file), or `text`."""


_CHAT = {
    "model": "x",
    "messages": [
        {"role": "system", "content": "Be short."},
        _TURN,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a": "b"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ],
    "max_tokens": 10,
    "temperature": 0.5,
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["\n"],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
            },
        }
    ],
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "s",
            "schema": {"type": "object", "properties": {"a": {"type": "array", "items": {}}}},
        },
    },
}
_SPEECH = {
    "model": "x",
    "input": "Hello.",
    "voice": "alloy",
    "response_format": "wav",
    "speed": 1.0,
    "stream_format": "audio",
}
_SECRET = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": _SESSION}
_CALL = {"to": "+491234567", "prompt": "Say hello.", "greeting": "Hello", "record": False}
_TWILIO = {
    "CallSid": "CA1",
    "AccountSid": "AC1",
    "From": "+1",
    "To": "+2",
    "CallStatus": "ringing",
    "RecordingUrl": "https://192.0.2.1/x",
    "RecordingDuration": "3",
    "Digits": "1",
}
_FILE_FORM = {
    "model": "x",
    "language": "en",
    "response_format": "verbose_json",
    "temperature": "0",
    "timestamp_granularities[]": "word",
    "stream": "false",
}
_READ = ("/v1/models", "/v1/models/x", "/v1/voices", "/v1/audio/voices", "/calls/compare")
_READ += ("/calls/x", "/health", "/ready", "/api/options", "/metrics")
_WEBHOOKS = ("/voice-stream", "/voice", "/voice/recorded", "/voice/wait", "/voice/silent")
_WEBHOOKS += ("/calls/status", "/calls/answered")
_SECRETS = ("client_secrets", "sessions", "transcription_sessions")
_GETS = tuple(Route("GET", path, {"a": "b"}, "query") for path in _READ)
ROUTES: Mapping[tuple[str, ...], Sequence[Route]] = {
    ("serve",): (
        Route("POST", "/v1/chat/completions", _CHAT),
        Route("POST", "/llm/v1/chat/completions", _CHAT),
        Route("POST", "/v1/audio/speech", _SPEECH),
        *(Route("POST", f"/v1/realtime/{name}", _SECRET) for name in _SECRETS),
        Route("POST", "/calls", _CALL),
        Route("POST", "/v1/audio/transcriptions", _FILE_FORM, "multipart"),
        Route("POST", "/v1/audio/translations", _FILE_FORM, "multipart"),
        Route("POST", "/v1/speech-to-speech", {"voice": "", "language": "en"}, "multipart"),
        Route("POST", "/v1/voices", {"name": "x"}, "multipart"),
        Route("POST", "/v1/realtime/calls", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n", "text"),
        Route("POST", "/v1/realtime/calls", {"session": json.dumps(_SESSION)}, "multipart"),
        *(Route("POST", path, _TWILIO, "form") for path in _WEBHOOKS),
        *_GETS,
    ),
    ("service", "stt"): (
        Route("POST", "/v1/audio/transcriptions", _FILE_FORM, "multipart"),
        Route("POST", "/api/asr-streaming", {"name": "x"}, "multipart"),
        *_GETS[:4],
    ),
    ("service", "tts"): (
        Route("POST", "/v1/audio/speech", _SPEECH),
        Route("POST", "/tts", _XTTS),
        Route("POST", "/tts_stream", {**_XTTS, "add_wav_header": True, "stream_chunk_size": "20"}),
        Route("POST", "/clone_speaker", {"name": "x"}, "multipart"),
        Route("POST", "/api/tts_streaming", {"text": ["Hi", "there"], "voice": "x"}),
        *_GETS[:4],
    ),
    ("service", "llm"): (Route("POST", "/v1/chat/completions", _CHAT), *_GETS[:4]),
}


@dataclass(slots=True)
class Report:
    seed: int
    seconds: float = 0.0
    inputs: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    by_route: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.failed and not self.tracebacks


def request(route: Route, dice: random.Random) -> tuple[str, dict[str, Any]]:
    """-> target and what httpx wants of the body."""
    if route.kind == "json":
        text = mutated(route.body, dice)
        return route.path, {
            "content": text.encode("utf-8", "surrogatepass"),
            "headers": {"Content-Type": "application/json"},
        }
    if route.kind == "text":
        at = dice.randrange(len(route.body))
        text = route.body[:at] + str(value(dice)) + route.body[at:]
        content = text.encode("utf-8", "surrogatepass")
        return route.path, {"content": content, "headers": {"Content-Type": "application/sdp"}}
    members = {name: dice.choice((text, text, _text(dice))) for name, text in route.body.items()}
    members.pop(dice.choice((*members, "")), None)
    query = "&".join(f"{quote(name)}={_quoted(text)[:4_000]}" for name, text in members.items())
    if route.kind == "query":
        place = dice.choice(
            (f"{route.path}?{query}", route.path + "/" + _quoted(_text(dice))[:3_000])
        )
        return place, {}
    if route.kind == "form":
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return route.path, {"content": query.encode(), "headers": kind}
    return route.path, _multipart(members, dice)


def _multipart(members: Mapping[str, str], dice: random.Random) -> dict[str, Any]:
    parts = []
    for name, text in members.items():
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(head.encode() + text.encode("utf-8", "surrogatepass") + b"\r\n")
    name = dice.choice(("a.wav", "", "a.bin", "\udcff" * 3, "n" * 300, "../a.wav"))
    field_name = dice.choice(("file", "file", "audio", "sdp"))
    head = f'--x\r\nContent-Disposition: form-data; name="{field_name}"; filename="{name}"\r\n\r\n'
    data = dice.choice(
        (b"", b"RIFF", dice.randbytes(500), b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(40))
    )
    parts.append(head.encode("utf-8", "surrogateescape") + data + b"\r\n")
    dice.shuffle(parts)
    ends = dice.choice((b"--x--\r\n", b"--x--\r\n", b"", b"--x"))
    return {
        "content": b"".join(parts) + ends,
        "headers": {"Content-Type": "multipart/form-data; boundary=x"},
    }


def _text(dice: random.Random) -> str:
    found = value(dice)
    return found if isinstance(found, str) else json.dumps(found)[:5_000]


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"))


async def fuzz_one(found: Target, routes: Sequence[Route], seconds: float, report: Report) -> None:
    dice = random.Random(f"{report.seed} {len(routes)}")
    end_s = time.monotonic() + seconds

    async def work(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end_s and found.alive:
            route = dice.choice(routes)
            place, options = request(route, dice)
            status = await _ask(http, route, place, options)
            _note(report, route, status)
            if status not in _ALLOWED and not (status.isdigit() and int(status) < 500):
                report.failed.append(f"{route.method} {place[:300]} {options!r}: {status}"[:2_000])
            if report.inputs % _PROBE_EVERY == 0 and not await asyncio.to_thread(found.answers):
                report.failed.append(f"{route.path}: others are not answered")

    async with httpx.AsyncClient(base_url=f"http://{found.address}", timeout=_LIMIT_S) as http:
        await asyncio.gather(*(work(http) for _ in range(_AT_A_TIME)))
    del report.failed[_MOST_TOLD:]
    if not found.alive:
        report.failed.append(f"the server ended with {found.process.returncode}")
    elif not await asyncio.to_thread(found.answers):
        report.failed.append("the server does not answer")


async def _ask(http: httpx.AsyncClient, route: Route, place: str, options: dict[str, Any]) -> str:
    """-> the status, or what kept it from coming."""
    for last in (False, True):
        try:
            return str((await http.request(route.method, place, **options)).status_code)
        except httpx.HTTPError as error:
            # The server may have closed a connection that was kept for more: that is no answer to this request.
            if last:
                return type(error).__name__
    raise AssertionError


def _note(report: Report, route: Route, status: str) -> None:
    report.inputs += 1
    for counts, name in ((report.statuses, status), (report.by_route, route.path)):
        counts[name] = counts.get(name, 0) + 1


def fuzz(seconds: float, seed: int) -> Report:
    """The time is shared by the servers as they have routes."""
    report = Report(seed)
    began_s = time.monotonic()
    routes_in_all = sum(len(routes) for routes in ROUTES.values())
    for command, routes in ROUTES.items():
        with target(*command) as found:
            asyncio.run(fuzz_one(found, routes, seconds * len(routes) / routes_in_all, report))
            time.sleep(0.5)  # for what is still to be written into the log
            report.tracebacks += found.tracebacks()
    report.seconds = round(time.monotonic() - began_s, 1)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Wrong requests for every HTTP route.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(".fuzz/http_json.json"))
    asked = parser.parse_args()
    report = fuzz(asked.seconds, asked.seed)
    text = json.dumps({**asdict(report), "good": report.good}, indent=2, sort_keys=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text + "\n")
    print(text)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())

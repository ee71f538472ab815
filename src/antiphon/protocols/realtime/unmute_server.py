"""The server's side of Unmute's dialect: a connection from its first `session.update` to its end, and its HTTP routes.

The conversation is the owner's own, endpointing and interruptions included: the dialect has no settings for them. The
agent speaks first, once it knows who it is and the microphone is on. docs/protocols/realtime.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.datastructures import UploadFile

from antiphon.audio.framing import Pcm16
from antiphon.call.call import Call
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import Item
from antiphon.core.policy import Policy
from antiphon.errors import BusyError, ModelError
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ, Kind
from antiphon.protocols.realtime import unmute
from antiphon.protocols.realtime.audio_formats import VOICE_RATE_HZ, to_base64
from antiphon.protocols.realtime.connection import INTERNAL, NORMAL, POLICY, Transport, short
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.input_audio_buffer import StableText
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.unmute import Mouth
from antiphon.server.admission import Calls, agent_of
from antiphon.server.budget import OverBudget, WorkBudget
from antiphon.server.http_errors import RequestRefused
from antiphon.server.outbox import Outbox
from antiphon.server.request_jobs import openai_errors
from antiphon.server.security import Principal, authorize
from antiphon.server.speech_stream import voices_of
from antiphon.server.voice_cloning import learn

log = logging.getLogger(__name__)

LEARNED = "custom:"
"""What names of learned voices begin with."""
_LAST_WORDS_S = 10.0
_CLOSE_S = 2.0
_MAX_ERRORS = 200
_SILENCE_MS = 7_000
"""Then the agent goes on by itself."""
_OPENING = (Item("opening", "user", "Hello."),)
"""What the first reply answers; it is no part of the history."""
_LEAD_MS = 320
"""The page plays what comes and cannot be told to forget it, so little is sent ahead."""
_CHUNK_MS = 80
_TAIL = np.zeros(VOICE_RATE_HZ // 10, np.int16)
"""Pushes the last words out of the encoder."""
_FAREWELL = "bye!"
"""A reply that ends with this ends the call."""
_OF_THE_OWNER = ("audio_quality",)
_encoder = msgspec.json.Encoder()


class UnmuteDoor:
    """The door of a call in Unmute's dialect: actions and audio become its events.

    `call` must be set before the call begins.
    """

    call: Call

    def __init__(self, outbox: Outbox, ids: Ids) -> None:
        self.audio = TransportAudio(rate_hz=VOICE_RATE_HZ, lead_ms=_LEAD_MS, chunk_ms=_CHUNK_MS)
        self.failed = False
        self.voice = ""
        self._outbox = outbox
        self._ids = ids
        self._mouth = Mouth()
        self._captions: dict[str, StableText] = {}
        self._sent = 0
        """Samples of the live reply, from its beginning."""
        self._told = 0
        """Words of the live reply that were told as heard."""

    def emit(self, kind: str, /, **fields: Any) -> None:
        event = {"type": kind, "event_id": self._ids.event(), **fields}
        self._outbox.put(_encoder.encode(event))

    def error(self, error: RealtimeError, kind: str = "warning") -> None:
        """`kind`: `warning` is logged by the page, `fatal` comes before the end."""
        body = {"type": kind, "code": error.code, "message": str(error), "param": error.param}
        self.emit("error", error={**body, "details": None})

    def close(self) -> None:
        self._mouth.close()

    # -- what the session says ----------------------------------------------------------------------

    def notice(self, action: act.Action) -> None:
        match action:
            case act.SpeechBegan():
                self.emit("input_audio_buffer.speech_started")
            case act.SpeechEnded():
                self.emit("input_audio_buffer.speech_stopped")
            case act.SpeechDropped(item):
                self._captions.pop(item, None)
                self.emit("input_audio_buffer.speech_stopped")
            case act.TranscriptFailed(item):
                self._captions.pop(item, None)
            case act.Transcript(item, text, final):
                self._caption(item, text, final)
            case act.ReplyBegan():
                self._sent = self._told = 0
                response = {"object": "realtime.response", "status": "in_progress"}
                shown = {**response, "voice": self.voice, "chat_history": self.chat_history()}
                self.emit("response.created", response=shown)
            case act.ReplyWords(_, _, text):
                self.emit("unmute.response.text.delta.ready", delta=text)
            case act.Play(_, from_ms):
                self._sent = from_ms * VOICE_RATE_HZ // 1000
            case act.ReplyEnded():
                self._reply_ended(action)
            case act.Fault(code, message):
                self.failed = self.failed or code == "internal_error"
                if code not in _OF_THE_OWNER:
                    self.error(RealtimeError(message, code))

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        self._sound(pcm)
        self._sent += len(pcm)
        live = self.call.view.reply
        if live is not None and live.id == reply:
            self._tell(live.playout.heard(self._sent * 1000 // VOICE_RATE_HZ)[0])

    def drop_audio(self, reply: str) -> None:
        """What was sent will be heard."""

    def hang_up(self, reason: str) -> None:
        """The connection closes the outbox."""

    # -- parts --------------------------------------------------------------------------------------

    def _sound(self, pcm: Pcm16) -> None:
        pages = self._mouth.feed(pcm)
        if pages:
            self.emit("response.audio.delta", delta=to_base64(pages))

    def _tell(self, heard: str) -> None:
        """One event per word, without the space before it."""
        words = heard.split()
        for word in words[self._told :]:
            self.emit("response.text.delta", delta=word)
        self._told = max(self._told, len(words))

    def _caption(self, item: str, text: str, final: bool) -> None:
        stable = self._captions.setdefault(item, StableText())
        words = stable.final(text) if final else stable.partial(text)
        at_s = round(self.call.heard_ms / 1000, 3)
        for word in words.split():
            kind = "conversation.item.input_audio_transcription.delta"
            self.emit(kind, delta=word, start_time=at_s)
        if final:
            del self._captions[item]

    def _reply_ended(self, ended: act.ReplyEnded) -> None:
        """The history comes before the end: clients look at it when that arrives."""
        if ended.status == "cancelled":
            self.emit("unmute.interrupted_by_vad")
        else:
            self._sound(_TAIL)
            self._tell(ended.heard)
        self.emit("response.text.done", text=ended.heard)
        args = {"chat_history": self.chat_history(), "debug_dict": {"status": ended.status}}
        self.emit("unmute.additional_outputs", args=args)
        self.emit("response.audio.done")
        if ended.status == "completed" and ended.heard.rstrip().lower().endswith(_FAREWELL):
            self.call.post(ev.Finish("the agent said goodbye"))

    def chat_history(self) -> list[dict[str, str]]:
        history = self.call.view.history.snapshot()
        told = [(i.role, i.text) for i in history if i.role in ("user", "assistant")]
        prompt = self.call.agent.prompt
        return [{"role": role, "content": text} for role, text in (("system", prompt), *told)]


class UnmuteConnection:
    """One call."""

    def __init__(self, transport: Transport, calls: Calls, max_s: float) -> None:
        self._transport = transport
        self._gone: tuple[type[Exception], ...] = (TimeoutError, *transport.gone)
        self._calls = calls
        self._max_s = max_s
        self._outbox = Outbox(calls.settings.server.max_outbox_bytes, self._on_stuck)
        self._door = UnmuteDoor(self._outbox, Ids(secrets.token_hex(8)))
        self._ears = unmute.Ears()
        self._budget = WorkBudget()
        self._call: Call | None = None
        self._updated = self._began = False
        self._errors = 0
        self._close_code, self._close_reason = NORMAL, ""

    async def serve(self) -> None:
        try:
            agent = agent_of(self._calls.settings)
            async with self._calls.open(self._door, _policy_for, agent) as call:
                self._call = self._door.call = call
                await self._converse(call)
        except (BusyError, ModelError) as error:
            self._close_code, self._close_reason = INTERNAL, str(error)
            self._door.error(RealtimeError(f"There are too many people here now: {error}"), "fatal")
            self._outbox.close()
            with contextlib.suppress(*self._gone):
                await self._outbox.drain(self._transport)
        finally:
            self._door.close()
            with contextlib.suppress(*self._gone):
                async with asyncio.timeout(_CLOSE_S):
                    await self._transport.close(self._close_code, short(self._close_reason))

    async def _converse(self, call: Call) -> None:
        async def read() -> None:
            budget = self._budget
            while (frame := await self._transport.receive()) is not None:
                try:
                    with budget.message(len(frame)):
                        self._take(call, frame)
                    if budget.due:
                        await budget.wait()
                except RealtimeError as error:
                    self._complain(error)
                except OverBudget as error:
                    self._close_code, self._close_reason = POLICY, str(error)
                    break
            call.post(ev.HungUp())

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            writer = group.create_task(self._write(call))
            await call.run(greet=False, max_s=self._max_s)
            reader.cancel()
            if self._door.failed:
                self._close_code, self._close_reason = INTERNAL, "internal error"
                self._door.error(RealtimeError("the call failed", "internal_error"), "fatal")
            self._outbox.close()
            await asyncio.wait([writer], timeout=_LAST_WORDS_S)
            writer.cancel()

    async def _write(self, call: Call) -> None:
        try:
            await self._outbox.drain(self._transport)
        except self._gone as gone:
            log.info("call %s: the client is gone: %s", call.call_id, gone or type(gone).__name__)
            self._outbox.abort()
            call.post(ev.HungUp("the client is gone"))

    # -- what the client says -----------------------------------------------------------------------

    def _take(self, call: Call, frame: str | bytes) -> None:
        match unmute.decode(frame):
            case unmute.Update() as update:
                self._update(call, update)
            case unmute.Append(data):
                pcm = self._ears.feed(data)
                if pcm is not None:
                    self._budget.heard(len(pcm) / STT_RATE_HZ)
                    call.feed_audio(pcm, STT_RATE_HZ)
                    self._begin(call)

    def _update(self, call: Call, update: unmute.Update) -> None:
        owner = agent_of(self._calls.settings)
        name = update.voice.removeprefix(LEARNED)
        voices = self._calls.models.info(Kind.TTS).voices
        call.agent = replace(
            owner,
            prompt=update.prompt or owner.prompt,
            voice=name if name in voices else owner.voice,
            language=update.language or owner.language,
        )
        self._door.voice = update.voice
        self._updated = True
        self._door.emit("session.updated", session=update.session)

    def _begin(self, call: Call) -> None:
        """Once: the microphone is on, and the agent knows who it is."""
        if self._updated and not self._began:
            self._began = True
            call.post(ev.RequestReply({"input": _OPENING}))

    def _complain(self, error: RealtimeError) -> None:
        self._errors += 1
        self._door.error(error)
        if self._errors >= _MAX_ERRORS and self._call is not None:
            self._close_code, self._close_reason = POLICY, "too many senseless events"
            self._call.post(ev.HungUp(self._close_reason))

    def _on_stuck(self) -> None:
        if self._call is not None:
            self._call.post(ev.HungUp("the client stopped reading"))


def _policy_for(policy: Policy) -> Policy:
    return replace(
        policy,
        greeting="",
        goodbye="",
        client_can_clear=False,
        client_reports_played=False,
        idle_prompt_after_ms=_SILENCE_MS,
        idle_answer=True,
    )


# -- HTTP, as Unmute's page and load test want it, also below `/api` -------------------------------


router = APIRouter(tags=["unmute"])
Admitted = Annotated[Principal, Depends(authorize)]

_MAX_CLIP_BYTES = 4 << 20
_FORM_BYTES = 64 << 10
_LEARN_S = 60.0


def include(app: FastAPI) -> None:
    """Add the routes. Unmute's page in a container asks below `/api`."""
    for prefix in ("/v1", "/api/v1"):
        app.include_router(router, prefix=prefix, include_in_schema=prefix == "/v1")


@router.get("/health")
async def health(request: Request) -> dict[str, bool]:
    """Always 200; `ok`: a call can be taken, as far as models go."""
    models: ModelSet = request.app.state.calls.models
    status = models.status()

    def up(kind: Kind) -> bool:
        return any(link.kind is kind and link.state == "ready" for link in status)

    found = {"tts_up": up(Kind.TTS), "stt_up": up(Kind.STT), "llm_up": up(Kind.LLM)}
    cloning = found["tts_up"] and models.learns_voices
    return {**found, "voice_cloning_up": cloning, "ok": all(found.values())}


@router.get("/voices")
async def voices(request: Request, principal: Admitted) -> list[dict[str, Any]]:
    """Never empty: the load test takes the first."""
    models: ModelSet = request.app.state.calls.models
    return [
        {
            "name": name,
            "good": True,
            "instructions": {"type": "smalltalk", "language": None},
            "source": {"source_type": "file", "path_on_server": name},
        }
        for name in voices_of(models)
    ]


@router.post("/voices")
async def learn_voice(request: Request, principal: Admitted) -> dict[str, str]:
    """The voice in the form's `file` -> a name for it, for as long as the process lives."""
    declared = request.headers.get("content-length", "")
    if not declared.isdigit():
        raise RequestRefused(411, "send a Content-Length", "length_required", retry=False)
    if int(declared) > _MAX_CLIP_BYTES + _FORM_BYTES:
        raise RequestRefused(413, "the clip is larger than 4 MiB", "file_too_large", retry=False)
    calls: Calls = request.app.state.calls
    async with request.form(max_files=1, max_fields=20) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestRefused(400, "send the clip as `file`", "missing_required_parameter")
        clip = await file.read(_MAX_CLIP_BYTES)
    now_ms = int(asyncio.get_running_loop().time() * 1000)
    with openai_errors():
        async with asyncio.timeout(_LEARN_S):
            name = await learn(calls.models, clip, Work(f"http-{secrets.token_hex(6)}", now_ms))
    return {"name": f"{LEARNED}{name}"}

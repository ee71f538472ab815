"""One question in a recording, one spoken answer: the same engine as a call, with a file at both ends.

Nothing is paced: the answer is as fast as the models.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from antiphon.call.call import Call
from antiphon.call.model_tasks import Agent
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import Item
from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import AudioError, ModelError, RequestError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import STT_RATE_HZ, Pcm16

ANSWER_RATE_HZ = 24_000
_PIECE_S = 8
_VAD_PATIENCE_S = 30.0
_LEAST_SPEECH_WINDOWS = 3
"""A recording in which the VAD hears less speech than this has none."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    transcript: str
    reply: str
    pcm: Pcm16
    """Mono, at `rate_hz`."""
    rate_hz: int
    record: TurnRecord
    total_ms: int
    """From the first sample handed over to the last of the answer."""
    history: tuple[Item, ...] = ()
    """All that was said so far, this question and answer last: what the next question is asked with."""

    @property
    def timings_ms(self) -> dict[str, int]:
        """How long each stage took; first token and first audio count from the stage's own start."""
        r = self.record
        return {
            "stt": _span(r.transcribe_ms, r.transcript_ms),
            "llm_first_token": _span(r.generate_ms, r.first_token_ms),
            "llm_total": _span(r.generate_ms, r.text_done_ms),
            "tts_first_audio": _span(r.speak_ms, r.first_audio_ms),
            "tts_total": _span(r.speak_ms, r.audio_done_ms),
            "total": self.total_ms,
        }


class _FileDoor:
    """Keeps the answer; plays it in no time, so that the core takes everything for heard."""

    audio = TransportAudio(rate_hz=ANSWER_RATE_HZ, paced=False)

    def __init__(self) -> None:
        self.call: Call | None = None
        self.pieces: list[Pcm16] = []
        self.faults: list[act.Fault] = []
        self.reply: act.ReplyEnded | None = None
        self.dropped = False
        self._samples = 0

    def notice(self, action: act.Action) -> None:
        assert self.call is not None
        match action:
            case act.Fault():
                self.faults.append(action)
                self.call.post(ev.Finish("failed"))
            case act.SpeechDropped():
                self.dropped = True
                self.call.post(ev.Finish("nothing was said"))
            case act.ReplyEnded():
                self.reply = action
                self.call.post(ev.Finish("answered"))

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        assert self.call is not None
        self.pieces.append(pcm)
        self._samples += len(pcm)
        self.call.post(ev.Played(reply, self._samples * 1000 // self.audio.rate_hz))

    def drop_audio(self, reply: str) -> None:
        pass

    def hang_up(self, reason: str) -> None:
        pass


class _Hearing:
    """Follows the VAD through the recording: how far it is, and whether anybody speaks."""

    def __init__(self, threshold: float) -> None:
        self.heard_ms = 0
        self.speech_windows = 0
        self._threshold = threshold
        self._moved = asyncio.Event()

    def observe(self, call: Call, event: ev.Event | None, out: list[act.Action]) -> None:
        if isinstance(event, ev.VadScored):
            self.heard_ms = event.end_ms
            self.speech_windows += event.probability >= self._threshold
            self._moved.set()

    async def reach(self, position_ms: int) -> None:
        """Raises ModelError when the VAD makes no progress."""
        while self.heard_ms < position_ms:
            self._moved.clear()
            try:
                async with asyncio.timeout(_VAD_PATIENCE_S):
                    await self._moved.wait()
            except TimeoutError:
                raise ModelError("voice activity detection hangs; restart the server") from None


async def answer_file(
    models: ModelSet, pcm: Pcm16, policy: Policy, agent: Agent, history: Sequence[Item] = ()
) -> FileAnswer:
    """`pcm`: mono, 16 kHz, shape [samples]. `history`: what was said before.

    Raises AudioError when nobody speaks in it, ModelError when a model fails, RequestError when none can be asked this.
    """
    length_ms = len(pcm) * 1000 // STT_RATE_HZ
    policy = replace(
        policy,
        auto_turns=False,
        greeting="",
        apology="",
        idle_prompt_after_ms=0,
        client_reports_played=True,
        max_turn_ms=max(length_ms, 1_000),
        speak_ahead_ms=3_600_000,
        first_segment_words=0,
    )
    transport, hearing = _FileDoor(), _Hearing(policy.speech_threshold)
    call_id = f"file-{secrets.token_hex(4)}"
    call = Call(
        call_id,
        models,
        transport,
        policy=policy,
        agent=agent,
        observers=(hearing.observe,),
        frank=True,  # whoever asked over a network is told less by the transport
    )
    transport.call = call
    running = asyncio.create_task(call.run(greet=False), name=f"answer {call_id}")
    try:
        # Ids of an earlier call mean nothing in this one.
        for number, item in enumerate(history):
            call.post(ev.AddItem(replace(item, id=f"before-{number}")))
        await _hear(call, pcm, hearing)
        _check_heard(call, hearing)
        call.post(ev.CommitInput(call.heard_ms, reply=True))
        await asyncio.shield(running)
    finally:
        call.post(ev.HungUp("given up"))
        await running
    return _result(call, transport)


def _check_heard(call: Call, hearing: _Hearing) -> None:
    if hearing.speech_windows >= _LEAST_SPEECH_WINDOWS:
        return
    if call.unscored_windows:
        raise ModelError("voice activity detection failed on this recording; the log says why")
    raise AudioError("nobody speaks in this recording; check the microphone and its level")


async def _hear(call: Call, pcm: Pcm16, hearing: _Hearing) -> None:
    """Hand the recording over in pieces, no faster than it is scored, so that no queue grows with its length."""
    step = _PIECE_S * STT_RATE_HZ
    for start in range(0, len(pcm), step):
        call.feed_audio(pcm[start : start + step], STT_RATE_HZ)
        if start + step >= len(pcm):
            call.flush_audio()
        await hearing.reach(call.heard_ms)


def _result(call: Call, transport: _FileDoor) -> FileAnswer:
    answers = [r for r in call.records if r.reply]
    if transport.dropped:
        raise AudioError(
            "no words were understood in this recording; check the microphone and its level"
        )
    if transport.faults or not answers:
        reason = "; ".join(fault.message for fault in transport.faults)
        if any(fault.code == "invalid_request" for fault in transport.faults):
            raise RequestError(reason)
        raise ModelError(reason or "the call ended without an answer")
    record = answers[-1]
    sound = np.concatenate(transport.pieces) if transport.pieces else np.empty(0, np.int16)
    return FileAnswer(
        transcript=record.user_text,
        reply=record.reply_text,
        pcm=sound,
        rate_hz=ANSWER_RATE_HZ,
        record=record,
        total_ms=call.now_ms,
        history=call.view.history.snapshot(),
    )


def _span(start_ms: int | None, end_ms: int | None) -> int:
    return 0 if start_ms is None or end_ms is None else end_ms - start_ms

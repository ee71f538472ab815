"""The recording flow, followed as Twilio does: the caller is recorded until they are silent, the server fetches the
recording and answers with a file to play.

In real time, the silence that ends a recording included: it is part of what the caller waits for. Twilio's own time to
store a recording and to fetch a file is not simulated. Knows webhooks and recordings; no websocket.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from antiphon.audio.containers import decode_file
from antiphon.audio.framing import Pcm16
from antiphon.client.phone import twiml_parser
from antiphon.client.phone.caller import Number
from antiphon.client.phone.caller_recording import CallerRecording, SpokenQuestion
from antiphon.client.phone.carrier_webhooks import Webhooks
from antiphon.client.phone.clips import FRAME_BYTES, RATE_HZ, Clip
from antiphon.client.phone.recording_host import RecordingHost
from antiphon.client.phone.script import CallResult, Script, fill_in
from antiphon.errors import AntiphonError, ProtocolError

_MAX_STEPS = 1_000
_MAX_REDIRECTS = 20
"""With nothing in between that the caller could hear or say."""
_MAX_SILENCE_S = 60.0


@dataclass(slots=True)
class _Tracks:
    """What was said and heard, placed on the loop's clock."""

    start_s: float
    caller: list[tuple[int, Pcm16]] = field(default_factory=list)
    agent: list[tuple[int, Pcm16]] = field(default_factory=list)

    def now(self) -> int:
        """Samples since the start."""
        return int((asyncio.get_running_loop().time() - self.start_s) * RATE_HZ)

    async def pass_until(self, sample: int) -> None:
        """Real time goes by."""
        at_s = self.start_s + sample / RATE_HZ
        await asyncio.sleep(max(at_s - asyncio.get_running_loop().time(), 0))

    async def lay(self, track: list[tuple[int, Pcm16]], pcm: Pcm16) -> int:
        """Sound that begins now, heard to its end -> where it began."""
        begin = self.now()
        track.append((begin, pcm))
        await self.pass_until(begin + len(pcm))
        return begin

    def recording(self) -> CallerRecording:
        size = self.now()
        caller, agent = np.zeros(size, np.int16), np.zeros(size, np.int16)
        fed = np.zeros(size // FRAME_BYTES + 1, np.uint8)
        for pieces, out in ((self.caller, caller), (self.agent, agent)):
            for at, pcm in pieces:
                part = pcm[: max(size - at, 0)]
                out[at : at + len(part)] = part
        for at, pcm in self.agent:
            fed[at // FRAME_BYTES : (at + len(pcm)) // FRAME_BYTES + 1] = 1
        return CallerRecording(caller, agent, fed.tobytes())


async def call_recorded(number: Number, script: Script, host: RecordingHost) -> CallResult:
    """One call through `/voice`. What goes wrong in it is told in the result, not raised."""
    result = CallResult(mode="record")
    tracks = _Tracks(asyncio.get_running_loop().time())
    asked: list[SpokenQuestion] = []
    try:
        async with Webhooks(number.line) as webhooks:
            flow = _Flow(webhooks, host, script, tracks, asked, deque(script.clips))
            result.ended = await flow.follow(number.webhook_url)
            result.faults = flow.faults
    except AntiphonError as error:
        result.trouble = str(error)
    if asked or tracks.agent:
        await fill_in(result, tracks.recording(), asked)
    return result


@dataclass(slots=True)
class _Flow:
    webhooks: Webhooks
    host: RecordingHost
    script: Script
    tracks: _Tracks
    asked: list[SpokenQuestion]
    left: deque[Clip]
    faults: list[str] = field(default_factory=list)

    async def follow(self, url: str) -> str:
        """Verb after verb -> how the call ended. Raises ProtocolError."""
        verbs, base = await self.webhooks.ask(url, status="ringing"), url
        redirects = 0
        for _ in range(_MAX_STEPS):
            verb = verbs.pop(0) if verbs else None
            redirects = redirects + 1 if isinstance(verb, twiml_parser.RedirectVerb) else 0
            match verb:
                case twiml_parser.RedirectVerb() if redirects > _MAX_REDIRECTS:
                    break
                case None:
                    return "the agent hung up: its TwiML came to an end"
                case twiml_parser.PlayVerb():
                    await self._play(verb)
                case twiml_parser.PauseVerb():
                    await self.tracks.pass_until(self.tracks.now() + int(verb.length_s * RATE_HZ))
                case twiml_parser.RedirectVerb():
                    base = verb.url
                    verbs = await self.webhooks.ask(base, method=verb.method)
                case twiml_parser.RecordVerb() if not self.left:
                    gone = {"CallStatus": "completed", "Digits": "hangup", "RecordingDuration": "0"}
                    await self.webhooks.tell(verb.action, gone)
                    return "the caller hung up"
                case twiml_parser.RecordVerb():
                    base = verb.action
                    verbs = await self._record(verb, self.left.popleft())
                case twiml_parser.OtherVerb(name="Hangup"):
                    return "the agent hung up"
                case twiml_parser.OtherVerb(name="Say"):
                    self.faults.append(f"<Say> is not spoken here: {verb.text[:80]}")
                case _:
                    raise ProtocolError(f"{base} asks for {verb}; the recording flow cannot follow")
        raise ProtocolError(f"{base} goes on for ever")

    async def _play(self, verb: twiml_parser.PlayVerb) -> None:
        data = await self.webhooks.fetch(verb.url)
        decoded = await asyncio.to_thread(decode_file, data, rate_hz=RATE_HZ)
        await self.tracks.lay(self.tracks.agent, decoded.pcm)

    async def _record(self, verb: twiml_parser.RecordVerb, clip: Clip) -> list[twiml_parser.Verb]:
        """Say one thing, be silent or press a key -> what the server wants next."""
        limit = int(verb.max_length_s * RATE_HZ)
        said = clip.sent[:limit]
        begin = await self.tracks.lay(self.tracks.caller, said)
        self.asked.append(SpokenQuestion.at(clip, begin))
        key = next((d for d in self.script.digits if d in verb.finish_keys), "")
        if not key and len(said) < limit:
            # Twilio listens for silence since the last sound, not since the end of a file.
            silence_s = min(verb.timeout_s or _MAX_SILENCE_S, _MAX_SILENCE_S)
            await self.tracks.pass_until(begin + clip.speech_end + int(silence_s * RATE_HZ))
        kept = said[: clip.speech_end] if verb.trim else said
        sid, url = self.host.keep(kept)
        fields = {
            "RecordingSid": sid,
            "RecordingUrl": url,
            "RecordingDuration": str(math.ceil(len(kept) / RATE_HZ)),
            "Digits": key,
        }
        if verb.status_callback:
            status = {**fields, "RecordingStatus": "completed", "RecordingSource": "RecordVerb"}
            trouble = await self.webhooks.tell(verb.status_callback, status)
            if trouble:
                self.faults.append(f"recording status callback: {trouble}")
        return await self.webhooks.ask(verb.action, fields, method=verb.method)

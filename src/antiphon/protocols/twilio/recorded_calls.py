"""The telephone without a stream: `POST /voice`, a recording per turn, a sound file for each answer.

Items are those of the core's history, so that a call may go from one flow to the other and the agent knows the rest.
Bounded in calls, in items of a call and in time.

The same agent, the same engine and the same memory as in a streamed call, so that both can be compared on one number,
and this one is there when websockets do not get through. The carrier waits 15 s for a webhook: an answer that takes
longer is fetched by a document that says "pause, then ask again". Whatever goes wrong becomes an apology: the call
lives.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from antiphon.audio.containers import decode_file
from antiphon.call.file_turn import answer_file
from antiphon.core.history import Item
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, AudioError
from antiphon.protocols.twilio import twiml
from antiphon.protocols.twilio.media_store import PlayVerbs
from antiphon.protocols.twilio.recording_fetcher import RecordingFetcher
from antiphon.server.admission import MAX_FILES, Calls, agent_of
from antiphon.telephony.call_log import CallLog, PhoneTurn

MAX_REMEMBERED_CALLS = 500
MAX_ITEMS = 200
"""Of one call; the oldest are forgotten."""
KEEP_S = 3600.0


class CallMemory:
    def __init__(
        self,
        *,
        max_calls: int = MAX_REMEMBERED_CALLS,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_calls = max_calls
        self._keep_s = keep_s
        self._clock = clock
        self._calls: OrderedDict[str, tuple[float, tuple[Item, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def of(self, call_sid: str) -> tuple[Item, ...]:
        """Oldest first; empty for a call that is new or forgotten."""
        self._expire()
        return self._calls.get(call_sid, (0.0, ()))[1]

    def keep(self, call_sid: str, items: Iterable[Item]) -> None:
        """All that was said so far."""
        self._calls[call_sid] = (self._clock(), tuple(items)[-MAX_ITEMS:])
        self._calls.move_to_end(call_sid)
        self._expire()

    def forget(self, call_sid: str) -> None:
        self._calls.pop(call_sid, None)

    def _expire(self) -> None:
        before_s = self._clock() - self._keep_s
        while self._calls:
            call_sid, (touched_s, _) = next(iter(self._calls.items()))
            if touched_s >= before_s and len(self._calls) <= self._max_calls:
                break
            del self._calls[call_sid]


log = logging.getLogger(__name__)
PATIENCE_S = 8.0
"""A webhook is answered within this, of the carrier's 15 s."""
ANSWER_LIMIT_S = 60.0
"""From the recording to its answer; then the agent apologises."""
MAX_CALLS = 200
_AGAIN = "Sorry, I did not hear anything. Could you say that again?"


@dataclass(frozen=True, slots=True)
class Taken:
    """A recording, as a webhook announces it."""

    call_sid: str
    url: str
    key: str
    """Names the recording: a webhook that comes twice is answered twice with the same."""


@dataclass(slots=True)
class _Call:
    silences: int = 0
    """Recordings in a row without a word."""
    key: str = ""
    work: asyncio.Task[str] | None = None
    """The answer to the recording `key`: verbs, with what follows them."""


class RecordedCalls:
    """Conducts calls from recording to recording. One per application; close it."""

    def __init__(
        self,
        calls: Calls,
        voice: PlayVerbs,
        fetcher: RecordingFetcher,
        memory: CallMemory,
        call_log: CallLog,
    ) -> None:
        self._server = calls
        self._voice = voice
        self._fetcher = fetcher
        self._memory = memory
        self._log = call_log
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._places = asyncio.Semaphore(MAX_FILES)

    async def close(self) -> None:
        tasks = [call.work for call in self._calls.values() if call.work is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._calls.clear()

    # -- what the webhooks say -------------------------------------------------------------------

    async def begin(self, call_sid: str) -> str:
        """The first words, and a recording."""
        self._call(call_sid)
        greeting = self._server.settings.phone.greeting or self._policy.greeting
        if not greeting or self._memory.of(call_sid):
            return self._listen("voice/")
        self._memory.keep(call_sid, [Item("greeting", "assistant", greeting)])
        return await self._say(greeting, "voice/") + self._listen("voice/")

    async def take(self, taken: Taken) -> str:
        """A recording has come: its answer, or a document that asks for it later."""
        call = self._call(taken.call_sid)
        if call.work is None or call.key != taken.key:
            if call.work is not None:
                call.work.cancel()
            call.key = taken.key
            call.work = asyncio.create_task(
                self._answer(call, taken), name=f"recorded {taken.call_sid}"
            )
        return await self.wait(taken.call_sid)

    async def wait(self, call_sid: str) -> str:
        """What became of the last recording."""
        work = self._call(call_sid).work
        if work is None:
            return self._listen("")
        done, _ = await asyncio.wait([work], timeout=PATIENCE_S)
        if not done:
            return twiml.pause(1) + twiml.redirect("wait")
        if work.cancelled():  # another recording has come meanwhile, or the caller is gone
            return self._listen("")
        return work.result()

    async def silent(self, call_sid: str) -> str:
        """Nobody spoke: ask again, and say goodbye after a while."""
        call, policy = self._call(call_sid), self._policy
        call.silences += 1
        if call.silences > policy.max_idle_prompts:
            bye = await self._say(policy.goodbye, "") if policy.goodbye else ""
            self.end(call_sid)
            return bye + twiml.HANG_UP
        return await self._say(policy.idle_prompt or _AGAIN, "") + self._listen("")

    def end(self, call_sid: str) -> None:
        """The caller is gone."""
        call = self._calls.pop(call_sid, None)
        if call is not None and call.work not in (None, asyncio.current_task()):
            assert call.work is not None
            call.work.cancel()
        self._memory.forget(call_sid)

    # -- one answer -------------------------------------------------------------------------------

    async def _answer(self, call: _Call, taken: Taken) -> str:
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S), self._places:
                return await self._answered(call, taken) + self._listen("")
        except AudioError as error:  # nothing in it that can be understood
            log.info("call %s: %s", taken.call_sid, error)
            return await self.silent(taken.call_sid)
        except (AntiphonError, TimeoutError) as error:
            log.warning("call %s: no answer: %s", taken.call_sid, error or "it took too long")
            return await self._apologise()
        except Exception:
            log.exception("call %s: no answer", taken.call_sid)
            return await self._apologise()

    async def _answered(self, call: _Call, taken: Taken) -> str:
        server, settings = self._server, self._server.settings
        clock = asyncio.get_running_loop().time
        began_s = clock()
        data = await self._fetcher.fetch(taken.url)
        fetched_s = clock()
        limit_s = settings.phone.record_max_s + 5
        decoded = await asyncio.to_thread(decode_file, data, max_duration_s=limit_s)
        with server.file_place():
            found = await answer_file(
                server.models,
                decoded.pcm,
                self._policy,
                agent_of(settings),
                self._memory.of(taken.call_sid),
            )
        call.silences = 0
        self._memory.keep(taken.call_sid, found.history)
        played = await self._voice.play(found.pcm, found.rate_hz, "")
        work_ms = round((clock() - began_s) * 1000)
        silence_ms = settings.phone.record_silence_s * 1000
        stages = {
            "end_of_turn": silence_ms,
            "fetch": round((fetched_s - began_s) * 1000),
            **{name: ms for name, ms in found.timings_ms.items() if name != "total"},
            "total": silence_ms + work_ms,
        }
        self._log.add("recorded", taken.call_sid, PhoneTurn(silence_ms + work_ms, stages))
        log.info(
            "call %s: recorded turn: %s",
            taken.call_sid,
            ", ".join(f"{name} {ms} ms" for name, ms in stages.items()),
        )
        return played

    async def _apologise(self) -> str:
        text = self._policy.apology
        return (await self._say(text, "") if text else "") + self._listen("")

    async def _say(self, text: str, folder: str) -> str:
        return await self._voice.say(text, agent_of(self._server.settings), folder)

    def _listen(self, folder: str) -> str:
        """`folder`: of the further addresses, as seen from the document."""
        phone = self._server.settings.phone
        heard = twiml.record(
            f"{folder}recorded", silence_s=phone.record_silence_s, max_s=phone.record_max_s
        )
        return heard + twiml.redirect(f"{folder}silent")

    @property
    def _policy(self) -> Policy:
        return self._server.settings.conversation

    def _call(self, call_sid: str) -> _Call:
        call = self._calls.setdefault(call_sid, _Call())
        self._calls.move_to_end(call_sid)
        if len(self._calls) > MAX_CALLS:
            _, oldest = self._calls.popitem(last=False)
            if oldest.work is not None:
                oldest.work.cancel()
        return call

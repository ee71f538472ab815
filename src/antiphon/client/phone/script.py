"""A whole call by script: one question after the other, and what came of it.

The next question comes when the agent has finished answering, or so many seconds into its answer. Knows the telephone
and the measuring; not how results are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from antiphon.client.phone.caller import Number, PhoneCall
from antiphon.client.phone.caller_recording import CallerRecording, SpokenQuestion
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import FRAME_BYTES, FRAME_S, RATE_HZ, Clip
from antiphon.client.phone.measure import SoundSpan, TurnFigures, measure, sounds
from antiphon.errors import AntiphonError

_TIMELINE_PAUSE_MS = 250


@dataclass(frozen=True, slots=True)
class Script:
    """What the caller does."""

    clips: Sequence[Clip]
    barge_in_at_s: float | None = None
    """Say the next thing so long into the agent's answer; None: when it has finished."""
    quiet_ms: int = 1_000
    """The agent has finished when it was silent for this long."""
    greeting_s: float = 3.0
    """How long to let the agent speak first; what it says then is heard to its end."""
    answer_limit_s: float = 30.0
    """Of the wait for an answer, and of the answer."""
    digits: str = ""
    """Pressed after the greeting; in the recording flow, after each question."""


@dataclass(slots=True)
class CallResult:
    """What a call was like. Without turns and with `trouble` where there was none to be had."""

    mode: str = "stream"
    turns: list[TurnFigures] = field(default_factory=list)
    recording: CallerRecording | None = None
    asked: list[SpokenQuestion] = field(default_factory=list)
    greeting_ms: float | None = None
    """Start of the call to the agent's first audible sample, where it spoke first."""
    ended: str = ""
    trouble: str = ""
    """Why not everything was asked."""
    faults: list[str] = field(default_factory=list)
    """What the server did that Twilio would warn of."""
    clears: int = 0
    marks: int = 0
    most_late_ms: float = 0.0
    """How late a frame of the caller left: where this is large, this machine was too busy to measure."""

    @property
    def unanswered(self) -> int:
        return sum(not turn.answered for turn in self.turns)

    def timeline(self) -> list[tuple[str, float, float]]:
        """(`caller` or `agent`, from ms, to ms) in order of time; pauses under 250 ms are no pauses."""
        if self.recording is None:
            return []
        spans = [("caller", SoundSpan(a.speech_start, a.speech_end)) for a in self.asked]
        spans += [("agent", span) for span in _joined(sounds(self.recording.agent))]
        ordered = sorted(spans, key=lambda item: item[1].start)
        per_ms = RATE_HZ / 1000
        return [(who, round(s.start / per_ms, 1), round(s.end / per_ms, 1)) for who, s in ordered]


def _joined(spans: Sequence[SoundSpan]) -> list[SoundSpan]:
    found: list[SoundSpan] = []
    for span in spans:
        if found and span.start - found[-1].end < _TIMELINE_PAUSE_MS * RATE_HZ // 1000:
            found[-1] = SoundSpan(found[-1].start, span.end)
        else:
            found.append(span)
    return found


async def call_once(number: Number, script: Script) -> CallResult:
    """One call over a media stream. What goes wrong in it is told in the result, not raised."""
    result = CallResult()
    call = PhoneCall(number, script.clips)
    try:
        async with call:
            await _follow(call, script)
    except AntiphonError as error:
        result.trouble = str(error)
    result.ended, result.faults = call.ended, call.faults
    if call.ended:  # there was a call
        await fill_in(result, call.recording(), call.asked)
        line = call.line
        result.clears, result.marks = len(line.playback.clears), line.marks
        result.most_late_ms = round(line.most_late_ms, 1)
    return result


async def fill_in(
    result: CallResult, recording: CallerRecording, asked: list[SpokenQuestion]
) -> None:
    """Measure, on a thread: other calls may be on."""
    result.recording, result.asked = recording, asked
    result.turns = await asyncio.to_thread(measure, recording, asked)
    until = asked[0].speech_start if asked else len(recording.agent)
    greeting = sounds(recording.agent[:until])
    result.greeting_ms = round(1000 * greeting[0].start / RATE_HZ, 1) if greeting else None


async def _follow(call: PhoneCall, script: Script) -> None:
    if script.greeting_s > 0 and await call.agent_speaks(script.greeting_s) is not None:
        await call.agent_finished(script.quiet_ms, script.answer_limit_s)
    if script.digits:
        call.press(script.digits)
        if not script.clips:
            await _listen(call, script, call.line.step, cut_in=False)
    for index, clip in enumerate(script.clips):
        asked = await call.say(clip)
        last = index + 1 == len(script.clips)
        cut_in = not last and script.barge_in_at_s is not None
        await _listen(call, script, asked.speech_end // FRAME_BYTES, cut_in=cut_in)


async def _listen(call: PhoneCall, script: Script, since_step: int, *, cut_in: bool) -> None:
    """Hear the answer, to its end or until it is time to interrupt."""
    begun = await call.agent_speaks(script.answer_limit_s, since_step=since_step)
    if begun is None:
        return
    if cut_in:
        assert script.barge_in_at_s is not None
        heard_s = (call.line.step - begun) * FRAME_S
        await call.wait(max(script.barge_in_at_s - heard_s, 0))
    else:
        await call.agent_finished(script.quiet_ms, script.answer_limit_s)


def numbered(number: Number, index: int) -> Number:
    """The same, called by somebody else: call and stream have identifiers of their own."""
    line, fresh = number.line, PhoneNumbers()
    caller = f"{line.from_number[:-2]}{index % 100:02}" if index else line.from_number
    own = replace(line, from_number=caller, call_sid=fresh.call_sid, stream_sid=fresh.stream_sid)
    impaired = replace(number.impairments, seed=number.impairments.seed + index)
    return replace(number, line=own, impairments=impaired)


def figures_of(results: Sequence[CallResult]) -> dict[str, list[Any]]:
    """All turns of all calls, by name of the figure; those that do not exist left out."""
    names = (
        "voice_to_voice_ms",
        "barge_in_to_silence_ms",
        "overlap_ms",
        "dead_air_ms",
        "answer_ms",
    )
    turns = [turn for result in results for turn in result.turns]
    found = {name: [getattr(turn, name) for turn in turns] for name in names}
    # An answer that happened to end just then was not stopped; but a server that never clears is not let off.
    if cleared := [turn.barge_in_to_silence_ms for turn in turns if turn.cleared]:
        found["barge_in_to_silence_ms"] = cleared
    # Every turn has an overlap; of those that were not interruptions it says nothing.
    found["overlap_ms"] = [value for value in found["overlap_ms"] if value > 0]
    return {name: [v for v in values if v is not None] for name, values in found.items()}

"""Observes the audio of a call without taking part: the diagnosis always, recordings where wanted."""

from __future__ import annotations

from antiphon.call.audio_diagnosis import Diagnosis
from antiphon.call.recording import CallRecording, DebugAudio
from antiphon.call.transport import ObservedCall
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.models.ports import Pcm16


class AudioObserver:
    """Of one call."""

    def __init__(
        self, recording: CallRecording | None = None, debug: DebugAudio | None = None
    ) -> None:
        self.diagnosis = Diagnosis()
        self._recording = recording
        self._debug = debug

    def heard(self, pcm: Pcm16, rate_hz: int, now_ms: int) -> str:
        """The caller's audio as it came -> a warning that the client should be told, or an empty string."""
        if self._recording is not None:
            self._recording.heard(pcm, rate_hz, now_ms)
        if self._debug is not None:
            self._debug.heard(pcm, rate_hz)
        return self.diagnosis.feed(pcm, rate_hz, now_ms)

    def sent(self, reply: str, from_ms: float, pcm: Pcm16, rate_hz: int, now_ms: int) -> None:
        """The agent's voice on its way out, from this position in its reply."""
        if self._recording is not None:
            self._recording.sent(reply, from_ms, pcm, rate_hz, now_ms)

    def taken_back(self, reply: str, now_ms: int) -> None:
        """The client drops what it has not played of this reply."""
        if self._recording is not None:
            self._recording.taken_back(reply, now_ms)

    def observe(self, call: ObservedCall, event: ev.Event | None, out: list[act.Action]) -> None:
        """An observer of the call."""
        if self._recording is not None:
            self._recording.observe(call, event, out)

    def finish(self, now_ms: int) -> None:
        """The call is over."""
        if self._recording is not None:
            self._recording.finish(now_ms)
        if self._debug is not None:
            self._debug.finish(self.diagnosis.report().fields())

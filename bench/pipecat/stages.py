"""When each step of a turn was done, as a line of JSON on stderr: the counterpart of Antiphon's turn records."""

from __future__ import annotations

import json
import sys
import time

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    Frame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed

STEPS: dict[type[Frame], str] = {
    TranscriptionFrame: "transcript",
    UserStoppedSpeakingFrame: "turn is over",
    LLMTextFrame: "first token",
    TTSStartedFrame: "first clause",
    TTSAudioRawFrame: "first audio",
    BotStartedSpeakingFrame: "sent",
}


class StageObserver(BaseObserver):
    """Of one call. Step -> ms after the end of speech, which is `stop_secs` before the VAD says so."""

    def __init__(self) -> None:
        super().__init__()
        self._end_s: float | None = None
        self._done: dict[str, float] = {}

    async def on_push_frame(self, data: FramePushed) -> None:
        frame = data.frame
        if isinstance(frame, VADUserStoppedSpeakingFrame) and data.first_push:
            self._end_s, self._done = time.monotonic() - frame.stop_secs, {}
            return
        step = STEPS.get(type(frame))
        if step is None or self._end_s is None or step in self._done:
            return
        self._done[step] = round(1000 * (time.monotonic() - self._end_s), 1)
        if step == "sent":
            print("stages: " + json.dumps(self._done), file=sys.stderr, flush=True)
            self._end_s = None

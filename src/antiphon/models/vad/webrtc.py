"""WebRTC VAD: voiced or not per frame of 10, 20 or 30 ms, smoothed to a probability. Small and quick, no weights.

Source: the voice activity detector of the WebRTC project (Gaussian mixtures over six bands), through the package
`webrtcvad-wheels`. It says yes or no; the share of yes among the last `smoothing_frames` frames serves as the
probability, so that the policy's thresholds keep their meaning: 0.5 is half of the smoothing window. With the
default of five frames of 20 ms speech is reported 60 ms after it began and ends 60 ms after its last voiced frame,
to which the detector adds a hangover of its own.

Coming from a system that counts silent frames: 15 frames of 20 ms are 300 ms of silence after which the turn is
over. Here that is the policy's decision: `conversation.plain_silence_ms = 300` with
`conversation.use_turn_detector = false` ends every turn after 300 ms, and with a turn detector
`conversation.min_silence_ms = 300` does so for those that sound finished. The option `silence_frames` instead holds
the *speech* for so many frames, before any of the policy's waiting begins, and makes the recorded end of speech
later by as much; it is 0 unless asked for.

Does not know thresholds, turns or when speech starts: that is `core/vad`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from antiphon.audio.levels import FULL_SCALE, rms
from antiphon.errors import ConfigError, ModelError
from antiphon.models.ports import ModelInfo, Pcm16, WeightSource
from antiphon.models.registry import register_model

_FRAMES_MS = (10, 20, 30)
_MAX_SMOOTHING = 100
_MAX_SILENCE = 500
_HELD = 0.5
"""What `silence_frames` holds the probability at: no more than the policy's usual threshold."""


class WebRtcState:
    """What is remembered of one call: the detector's noise model and its latest verdicts."""

    __slots__ = ("detector", "rate_hz", "silent", "speaking", "voiced")

    def __init__(self, detector: Any, rate_hz: int, smoothing_frames: int) -> None:
        self.detector = detector
        self.rate_hz = rate_hz
        # A call begins in silence: the first voiced frame is not yet certain speech.
        self.voiced: deque[bool] = deque([False] * smoothing_frames, smoothing_frames)
        self.silent = 0
        """Frames since the last voiced one."""
        self.speaking = False


@register_model("vad", "webrtc")
class WebRtcVad:
    """The `Vad` port on WebRTC's detector. One detector per call; about 0.2 ms of CPU per second of audio."""

    rates_hz: ClassVar[tuple[int, ...]] = (8_000, 16_000)

    def __init__(
        self,
        weights: WeightSource,
        *,
        aggressiveness: int = 3,
        frame_ms: int = 20,
        smoothing_frames: int = 5,
        silence_frames: int = 0,
        gate_dbfs: float | None = None,
    ) -> None:
        """`aggressiveness`: 0 (takes most for speech) to 3. `frame_ms`: 10, 20 or 30; a window is 20 ms, or 30.

        `smoothing_frames`: 1 to 100, over which voiced frames are counted. `silence_frames`: speech is held until so
        many frames in a row are unvoiced. `gate_dbfs`: frames quieter than this are never voiced; None: no gate.
        Raises ConfigError for a value out of range.
        """
        _check("aggressiveness", aggressiveness, 0, 3)
        _check("smoothing_frames", smoothing_frames, 1, _MAX_SMOOTHING)
        _check("silence_frames", silence_frames, 0, _MAX_SILENCE)
        if frame_ms not in _FRAMES_MS:
            raise ConfigError(f"WebRTC VAD: frame_ms must be 10, 20 or 30, got {frame_ms!r}")
        if gate_dbfs is not None and not -96 <= gate_dbfs <= 0:
            raise ConfigError(f"WebRTC VAD: gate_dbfs must be -96 to 0, got {gate_dbfs!r}")
        self.info = ModelInfo(
            "webrtc", detail=f"aggressiveness {aggressiveness}, {frame_ms} ms frames, cpu"
        )
        self._aggressiveness = aggressiveness
        self._frame_ms = frame_ms
        self._smoothing_frames = smoothing_frames
        self._silence_frames = silence_frames
        self._least_rms = 0.0 if gate_dbfs is None else FULL_SCALE * 10 ** (gate_dbfs / 20)
        self._library: Any = None

    def load(self) -> None:
        """Raises ModelError when the package is missing."""
        try:
            import webrtcvad
        except ImportError as error:
            raise ModelError(
                f"WebRTC VAD cannot be imported ({error}); run: pip install 'antiphon[webrtc]'"
            ) from error
        self._library = webrtcvad

    def close(self) -> None:
        self._library = None

    def window_samples(self, rate_hz: int) -> int:
        """20 ms of samples (30 with frames of 30 ms). Raises ModelError for a rate it does not take."""
        if rate_hz not in self.rates_hz:
            raise ModelError(f"WebRTC VAD takes 8000 or 16000 Hz, not {rate_hz} Hz; resample first")
        return rate_hz * max(self._frame_ms, 20) // 1000

    def new_state(self, rate_hz: int) -> WebRtcState:
        """The state of a call that has just begun. Raises ModelError when not loaded, or for the rate."""
        self.window_samples(rate_hz)
        if self._library is None:
            raise ModelError("WebRTC VAD is not loaded; call load() first")
        detector = self._library.Vad(self._aggressiveness)
        return WebRtcState(detector, rate_hz, self._smoothing_frames)

    def score(self, windows: Sequence[Pcm16], states: Sequence[WebRtcState]) -> Sequence[float]:
        """One window of each of several calls -> share of voiced frames 0..1.

        Windows: [window_samples(rate)] each. Raises ModelError for any other shape.
        """
        return [
            self._score_one(window, state) for window, state in zip(windows, states, strict=True)
        ]

    def _score_one(self, window: Pcm16, state: WebRtcState) -> float:
        size = self.window_samples(state.rate_hz)
        if window.shape != (size,):
            raise ModelError(
                f"WebRTC VAD takes windows of {size} samples at {state.rate_hz} Hz, got "
                f"{window.shape}"
            )
        frame = state.rate_hz * self._frame_ms // 1000
        for start in range(0, size, frame):
            self._take_frame(window[start : start + frame], state)
        share = sum(state.voiced) / len(state.voiced)
        if share >= _HELD:
            state.speaking = True
        elif state.silent >= self._silence_frames:
            state.speaking = False
        return max(share, _HELD) if state.speaking else share

    def _take_frame(self, frame: Pcm16, state: WebRtcState) -> None:
        # The detector hears every frame, gated or not: it learns the noise from what is not speech.
        voiced = state.detector.is_speech(np.ascontiguousarray(frame).tobytes(), state.rate_hz)
        if voiced and self._least_rms and rms(frame) < self._least_rms:
            voiced = False
        state.voiced.append(voiced)
        state.silent = 0 if voiced else state.silent + 1


def _check(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(
            f"WebRTC VAD: {name} must be a whole number from {least} to {most}, got {value!r}"
        )

"""Silero VAD (v5/v6 ONNX): speech probability of 32 ms windows, for many calls in one run.

Source: the model's own interface (snakers4/silero-vad): a window is preceded by the last samples of
the window before it, and a recurrent state [2, calls, 128] goes from run to run. Does not know
thresholds, turns or when speech starts: that is `core/vad`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from antiphon.errors import ModelError
from antiphon.models.onnx import open_session, run, weight_file
from antiphon.models.ports import ModelInfo, Pcm16, WeightSource
from antiphon.models.registry import register_model

Float32 = npt.NDArray[np.float32]

_WINDOW_SAMPLES = {8_000: 256, 16_000: 512}
_CONTEXT_SAMPLES = {8_000: 32, 16_000: 64}
_STATE_SIZE = 128
_SCALE = np.float32(1.0 / 32768.0)


class SileroState:
    """What the model remembers of one call."""

    __slots__ = ("context", "memory", "rate_hz")

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.context: Pcm16 = np.zeros(_CONTEXT_SAMPLES[rate_hz], np.int16)
        self.memory: Float32 = np.zeros((2, _STATE_SIZE), np.float32)


@register_model("vad", "silero")
class Silero:
    """The `Vad` port on Silero's ONNX model, on one thread."""

    rates_hz: ClassVar[tuple[int, ...]] = (8_000, 16_000)

    def __init__(self, weights: WeightSource, *, model: str = "silero-vad") -> None:
        self.info = ModelInfo("silero", detail=f"{model}, cpu, 1 thread")
        self._weights = weights
        self._model = model
        self._session: Any = None
        self._rates = {rate: np.array(rate, np.int64) for rate in self.rates_hz}

    def load(self) -> None:
        """Open the model and run it once at each rate. Raises ModelError."""
        path = weight_file(self._weights.files(self._model), "silero_vad.onnx", self._model)
        self._session = open_session(path)
        for rate_hz in self.rates_hz:
            silence = np.zeros(self.window_samples(rate_hz), np.int16)
            self.score([silence], [self.new_state(rate_hz)])

    def close(self) -> None:
        self._session = None

    def window_samples(self, rate_hz: int) -> int:
        """256 at 8 kHz, 512 at 16 kHz. Raises ModelError for any other rate."""
        try:
            return _WINDOW_SAMPLES[rate_hz]
        except KeyError:
            raise ModelError(
                f"Silero takes 8000 or 16000 Hz, not {rate_hz} Hz; resample first"
            ) from None

    def new_state(self, rate_hz: int) -> SileroState:
        """The state of a call that has just begun. Raises ModelError for a rate it does not take."""
        self.window_samples(rate_hz)
        return SileroState(rate_hz)

    def score(self, windows: Sequence[Pcm16], states: Sequence[SileroState]) -> Sequence[float]:
        """One window of each of several calls -> probabilities 0..1, in one run of the model.

        Windows: [window_samples(rate)] each; all states of the same rate, each state at most once.
        """
        if not windows:
            return []
        rate_hz = states[0].rate_hz
        inputs, memory = self._gather(windows, states, rate_hz)
        scores, after = run(
            "Silero",
            self._session,
            {"input": inputs, "state": memory, "sr": self._rates[rate_hz]},
        )
        kept = _CONTEXT_SAMPLES[rate_hz]
        for index, (window, state) in enumerate(zip(windows, states, strict=True)):
            state.memory[...] = after[:, index]
            state.context[...] = window[-kept:]
        result: list[float] = scores[:, 0].tolist()
        return result

    def _gather(
        self, windows: Sequence[Pcm16], states: Sequence[SileroState], rate_hz: int
    ) -> tuple[Float32, Float32]:
        """Samples [calls, context + window] scaled to -1..1, and memories [2, calls, 128]."""
        context, size = _CONTEXT_SAMPLES[rate_hz], _WINDOW_SAMPLES[rate_hz]
        for window, state in zip(windows, states, strict=True):
            if state.rate_hz != rate_hz or window.shape != (size,):
                raise ModelError(
                    f"Silero takes windows of {size} samples at {rate_hz} Hz in one request, got "
                    f"{window.shape} at {state.rate_hz} Hz"
                )
        inputs = np.empty((len(windows), context + size), np.float32)
        inputs[:, :context] = np.concatenate([state.context for state in states]).reshape(
            -1, context
        )
        inputs[:, context:] = np.concatenate(windows).reshape(-1, size)
        inputs *= _SCALE
        return inputs, np.stack([state.memory for state in states], axis=1)

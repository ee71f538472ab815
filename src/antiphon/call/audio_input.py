"""The caller's audio on its way in: resampled, cut into windows, scored in order, and its gaps filled.

Bounded: `MAX_WINDOWS` wait for the voice activity model; more audio is dropped, and that is said once.

Clients send every 20 ms or every second (MediaRecorder time slices), so "stopped" is judged by the client's own rhythm.
Phone networks and push-to-talk pages stop sending while the caller is silent; without this a turn would never end.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable

import numpy as np

from antiphon.audio.denoise import Denoiser
from antiphon.audio.framing import Framer
from antiphon.audio.resample import Resampler
from antiphon.call.audio_buffer import AudioBuffer
from antiphon.errors import AntiphonError, BusyError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Pcm16

log = logging.getLogger(__name__)

MAX_WINDOWS = 4_000
"""Two minutes of audio that came faster than it can be scored."""
_IN_FLIGHT = 8
"""Windows of one call at the VAD at a time, so that one call's burst does not hold up the others."""
_RETRY_S = 0.05


def _ignore() -> None:
    pass


def _ignore_score(probability: float, end_ms: int) -> None:
    pass


class AudioInput:
    """Of one call. `on_score(probability, end_ms)` is called for every window, `on_overflow()` when audio is lost.

    Raises ModelError when no VAD is loaded.
    """

    def __init__(
        self,
        call_id: str,
        models: ModelSet,
        keep_ms: int,
        on_score: Callable[[float, int], None],
        on_overflow: Callable[[], None],
        denoise: int = 0,
        rate_hz: int = 16_000,
    ) -> None:
        """`keep_ms`: how much audio is kept for speech to text, whatever happens. `denoise`: level, 0 for none.

        `rate_hz`: to listen at, if the model takes it. What is kept is kept at this rate and filtered up to that of
        speech to text piece by piece when it is asked for, so that silence costs nothing.
        """
        vad = models.vad
        self.rate_hz = next((hz for hz in (rate_hz, 16_000) if hz in vad.rates_hz), vad.rates_hz[0])
        self.kept = AudioBuffer(self.rate_hz, keep_ms)
        self.unscored = 0
        """Windows for which the VAD failed. They count as silence: the call goes on without it."""
        self._call_id = call_id
        self._vad = vad
        self._on_score = on_score
        self._on_overflow = on_overflow
        self._loop = asyncio.get_running_loop()
        self._window = vad.window_samples(self.rate_hz)
        self._framer = Framer(self._window)
        self._state = vad.new_state(self.rate_hz)
        self._noise_level = 0
        self._denoiser: Denoiser | None = None
        self.denoise(denoise)
        self._resampler: Resampler | None = None
        self._windows: deque[Pcm16] = deque()
        self._in_flight = 0
        self._scored = 0
        self._overflowed = False
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def heard_ms(self) -> int:
        """Audio received so far, whole windows."""
        return self.kept.end_ms

    @property
    def waiting_ms(self) -> int:
        """Audio that has not been scored yet."""
        return len(self._windows) * self._window * 1000 // self.rate_hz

    def wanted(self, rate_hz: int) -> int:
        """Samples at this rate that complete the next window, at least 1. Fewer at a time only cost more."""
        return max(math.ceil(self._framer.missing * rate_hz / self.rate_hz), 1)

    def denoise(self, level: int) -> None:
        """From now on at this level; 0: not at all. Raises ConfigError when the filter is not installed."""
        if level == self._noise_level:
            return
        after = Denoiser(self.rate_hz, level) if level else None
        before, self._denoiser, self._noise_level = self._denoiser, after, level
        if before is not None:
            self._frame(before.flush())

    def feed(self, pcm: Pcm16, rate_hz: int) -> None:
        """More audio, any amount at any rate."""
        if self._closed:
            return
        if self._resampler is None or self._resampler.from_hz != rate_hz:
            self._resampler = Resampler(rate_hz, self.rate_hz)
        pcm = self._resampler.process(pcm)
        if self._denoiser is not None:
            pcm = self._denoiser.process(pcm)
        self._frame(pcm)

    def _frame(self, pcm: Pcm16) -> None:
        for window in self._framer.feed(pcm):
            if len(self._windows) >= MAX_WINDOWS:
                self._overflow()
                break
            self._keep(window)
        self._submit()

    def feed_silence(self, duration_ms: int) -> None:
        """For an ear, a client that stops sending is silent."""
        self.feed(np.zeros(duration_ms * self.rate_hz // 1000, np.int16), self.rate_hz)

    def flush(self) -> None:
        """No more audio is coming for now: fill the last window up with silence, so that nothing is left waiting."""
        if self._resampler is not None:
            pcm, self._resampler = self._resampler.flush(), None
            if self._denoiser is not None:
                pcm = np.concatenate([self._denoiser.process(pcm), self._denoiser.flush()])
            for window in self._framer.feed(pcm):
                self._keep(window)
        rest = self._framer.remainder
        self._framer.reset()
        if len(rest):
            last = np.zeros(self._window, np.int16)
            last[: len(rest)] = rest
            self._keep(last)
        self._submit()

    def close(self) -> None:
        """Hear nothing more."""
        self._closed = True
        self._windows.clear()
        self.kept.clear()
        self._on_score, self._on_overflow = _ignore_score, _ignore
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _keep(self, window: Pcm16) -> None:
        self.kept.append(window)
        self._windows.append(window)

    def _overflow(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            self._on_overflow()

    def _submit(self) -> None:
        while self._windows and self._in_flight < _IN_FLIGHT and self._retry is None:
            try:
                self._vad.submit(self._windows[0], self._state, self._on_scored)
            except BusyError:
                self._retry = self._loop.call_later(_RETRY_S, self._submit_again)
                return
            except AntiphonError as error:
                log.warning("call %s: voice activity: %s", self._call_id, error)
                self._loop.call_soon(self._on_scored, math.nan)
            self._windows.popleft()
            self._in_flight += 1

    def _submit_again(self) -> None:
        self._retry = None
        self._submit()

    def _on_scored(self, probability: float) -> None:
        self._in_flight -= 1
        self._scored += 1
        if self._closed:
            return
        if (
            len(self._windows) < MAX_WINDOWS // 2
        ):  # not at the first free place, or it would be told again and again
            self._overflowed = False
        if math.isnan(probability):
            self.unscored += 1
            probability = 0.0
        self._on_score(probability, self._scored * self._window * 1000 // self.rate_hz)
        self._submit()


_LEAST_S = 0.5
_RHYTHMS = 2.0
"""Two of the longest recent gaps are a stop, not jitter."""
_FILL_STEP_S = 0.1


class GapFiller:
    """`fill(duration_ms)` is called every 100 ms while watching and nothing arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fill: Callable[[int], None]) -> None:
        self._loop = loop
        self._fill = fill
        self._last_s = loop.time()
        self._gap_s = 0.0
        self._filled_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def arrived(self) -> None:
        """Audio came."""
        now_s = self._loop.time()
        gap_s = now_s - self._last_s
        # The longest gap fades, so that one hiccup does not slow down the rest of the call.
        self._gap_s = max(gap_s, 0.9 * self._gap_s) if gap_s < 3 else self._gap_s
        self._last_s = self._filled_until_s = now_s

    def watch(self, watching: bool) -> None:
        """Only while a turn is being heard does a stall matter."""
        if watching and self._timer is None:
            self._timer = self._loop.call_later(_FILL_STEP_S, self._check)
        elif not watching:
            self.stop()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = self._loop.call_later(_FILL_STEP_S, self._check)
        now_s = self._loop.time()
        if now_s - self._last_s < max(_LEAST_S, _RHYTHMS * self._gap_s):
            return
        missing_s = now_s - self._filled_until_s
        self._filled_until_s = now_s
        self._fill(int(min(missing_s, 3.0) * 1000))

"""The agent's voice on its way out: holds the live reply's audio, sends it with a small lead, and can stop at once.

Timed by the event loop's clock without drift. Knows replies by name only; what may be heard is decided by the core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from antiphon.audio.resample import Resampler
from antiphon.call.transport import Nobody, Transport
from antiphon.models.ports import Pcm16


def _ignore(reply: str, sent_ms: int) -> None:
    pass


class AudioOutput:
    """One reply at a time. `sent(reply, ms)` is called with the cumulative position after each piece."""

    def __init__(self, transport: Transport, sent: Callable[[str, int], None]) -> None:
        self._transport: Transport = transport
        self._sent = sent
        self._loop = asyncio.get_running_loop()
        self._reply = ""
        self._pieces: list[Pcm16] = []
        self._made = 0
        """Samples that were made, at the transport's rate."""
        self._cursor = 0
        """Samples that were sent."""
        self._furthest = 0
        """Samples that were ever sent: after a false alarm the cursor goes back."""
        self._playing = False
        self._held = False
        self._began_s = 0.0
        """Loop time at which the sample at position 0 would have been played."""
        self._timer: asyncio.TimerHandle | None = None
        self._resampler: Resampler | None = None
        self.on_audio: Callable[[str, float, Pcm16], None] | None = None
        """Told of each piece that is sent, and of its position in ms."""

    @property
    def rate_hz(self) -> int:
        """Of what is sent."""
        return self._transport.audio.rate_hz

    # -- what is made ---------------------------------------------------------------------------

    def add(self, reply: str, pcm: Pcm16, rate_hz: int) -> int:
        """More of a reply's audio, as synthesised -> ms of it at hand that were not before."""
        if reply != self._reply:
            self.forget()
            self._reply = reply
        if self._resampler is None or self._resampler.from_hz != rate_hz:
            self._resampler = Resampler(rate_hz, self._transport.audio.rate_hz)
        return self._keep(self._resampler.process(pcm))

    def end_clause(self, reply: str) -> int:
        """The clause is complete: give out what the resampler still holds back -> ms."""
        if reply != self._reply or self._resampler is None:
            return 0
        tail, self._resampler = self._resampler.flush(), None
        return self._keep(tail)

    def _keep(self, pcm: Pcm16) -> int:
        before_ms = self._ms(self._made)
        if len(pcm):
            self._pieces.append(pcm)
            self._made += len(pcm)
        return self._ms(self._made) - before_ms

    def recent(self, duration_ms: int) -> Pcm16:
        """The last so many ms that were sent of a reply that may still be going on, at the transport's rate."""
        first = max(self._furthest - duration_ms * self._transport.audio.rate_hz // 1000, 0)
        return self._take(first, self._furthest) if self._pieces else np.empty(0, np.int16)

    # -- what is sent ---------------------------------------------------------------------------

    def play(self, reply: str, from_ms: int) -> None:
        """Send from this position on, now and as more is made."""
        if reply != self._reply:
            return
        self._cursor = min(from_ms * self._transport.audio.rate_hz // 1000, self._made)
        self._playing = True
        self._began_s = self._loop.time() - self._cursor / self._transport.audio.rate_hz
        self.pump()

    def pause(self) -> None:
        """Stop sending; the audio is kept."""
        self._playing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hold(self) -> None:
        """Nobody is on the line for the moment: send nothing, whatever is asked."""
        self._held = True

    def release(self) -> str:
        """-> the reply that was playing; whoever knows how much of it was heard plays it from there."""
        self._held = False
        return self._reply if self._playing else ""

    def forget(self) -> None:
        """Stop sending and drop everything."""
        self.pause()
        self._reply, self._pieces, self._made, self._cursor, self._furthest = "", [], 0, 0, 0
        self._resampler = None

    def close(self) -> None:
        """The call is over: nobody is told of anything any more."""
        self.forget()
        self.on_audio, self._sent, self._transport = None, _ignore, Nobody()

    def abandon(self, reply: str) -> None:
        """Nothing of this reply is wanted any more."""
        if reply == self._reply:
            self.forget()

    def pump(self) -> None:
        """Send what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held or not self._playing or self._cursor >= self._made:
            return
        audio, now_s = self._transport.audio, self._loop.time()
        if not audio.paced:
            self._send(self._made)
            return
        played = (now_s - self._began_s) * audio.rate_hz
        if played > self._cursor:  # the supply had a gap: the client's sound stopped there too
            self._began_s = now_s - self._cursor / audio.rate_hz
            played = self._cursor
        due = int(played) + audio.lead_ms * audio.rate_hz // 1000
        due -= due % max(audio.align_ms * audio.rate_hz // 1000, 1) if due < self._made else 0
        if due > self._cursor:
            self._send(min(due, self._made))
        if self._cursor < self._made:
            self._timer = self._loop.call_later(audio.chunk_ms / 1000, self.pump)

    def _send(self, until: int) -> None:
        reply = self._reply
        chunk = self._take(self._cursor, until)
        if self.on_audio is not None:
            self.on_audio(reply, self._cursor * 1000 / self._transport.audio.rate_hz, chunk)
        self._cursor, self._furthest = until, max(self._furthest, until)
        self._sent(reply, self._ms(until))  # first: a client that plays in no time answers at once
        self._transport.send_audio(reply, chunk)

    def _take(self, start: int, end: int) -> Pcm16:
        """Samples between two positions of the reply."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0][start:end]

    def _ms(self, samples: int) -> int:
        return samples * 1000 // self._transport.audio.rate_hz

"""What one connection may ask of the server per second: messages, bytes, audio, and time on the event loop.

A client that asks for more waits: its reader calls `wait`, nothing more is read from its socket, and the network tells
the client to slow down. A client that stays over its budget is ended with `OverBudget`, except for audio, which only
waits: somebody may send a whole recording as fast as the line takes it. Nobody else notices either.

    with budget.message(len(frame)):
        take(frame)
    if budget.due:
        await budget.wait()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import getrandbits
from typing import Self

from antiphon.errors import ProtocolError

_SETTLE_MESSAGES = 32
_SETTLE_BYTES = 64 << 10
_SETTLE_WORK_S = 0.002
_SETTLE_AUDIO_S = 0.5
_SAMPLED_BYTES = 16 << 10
_SAMPLED_BITS = 5
"""Asking for CPU time is a system call that costs as much as a tenth of a telephone frame. Of smaller messages one in
32, at random, is measured and counts 32 times."""
_RECOVERED = 0.1
"""Of its burst: a connection with this much left of everything is not over its budget any more."""


class OverBudget(ProtocolError):
    """A client asked for more than its share for too long; the connection is to be closed with 1008 and this reason."""


@dataclass(frozen=True, slots=True)
class WorkRate:
    """A token bucket: `burst` at once, and `per_s` more each second."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one connection may ask for. A client that behaves uses a quarter of it at most."""

    messages: WorkRate = WorkRate(200, 3_000)
    """Frames or events of any kind. Telephones send 50 a second, and catch up after a stall."""
    requests: WorkRate = WorkRate(10, 100)
    """Messages that start work: typed text, a key of the telephone, a changed setting, a reply asked for."""
    size_bytes: WorkRate = WorkRate(2 << 20, 32 << 20)
    audio_s: WorkRate = WorkRate(2, 60)
    """Seconds of the caller's audio: a push-to-talk turn comes at once."""
    work_s: WorkRate = WorkRate(0.1, 1.0)
    """CPU time of the event loop's thread while messages are handled."""
    patience_s: float = 60.0
    """A connection that is over its budget for so long without recovering is ended."""


class Bucket:
    """Tokens of one kind. What is spent may exceed what is there: the debt is waited for."""

    __slots__ = ("_at_s", "_left", "rate")

    def __init__(self, rate: WorkRate, now_s: float) -> None:
        self.rate = rate
        self._left = rate.burst
        self._at_s = now_s

    def left(self, now_s: float) -> float:
        """Negative: a debt."""
        rate = self.rate
        self._left = min(self._left + (now_s - self._at_s) * rate.per_s, rate.burst)
        self._at_s = now_s
        return self._left

    def spend(self, amount: float, now_s: float) -> float:
        """-> seconds until the debt is paid; 0 where there is none."""
        self._left = self.left(now_s) - amount
        return max(-self._left / self.rate.per_s, 0.0)

    def take(self, wanted: float, now_s: float) -> float:
        """-> as much of it as is there, which is spent."""
        taken = max(min(wanted, self.left(now_s)), 0.0)
        self._left -= taken
        return taken


@dataclass(slots=True)
class _Spent:
    """Since the buckets were last looked at: counting is cheap, looking at five buckets for each message is not."""

    messages: int = 0
    requests: int = 0
    size_bytes: int = 0
    audio_s: float = 0.0
    work_s: float = 0.0


_TOLD = {
    "messages": "messages",
    "requests": "requests",
    "size_bytes": "bytes",
    "work_s": "seconds of the server's time",
}


@dataclass(slots=True)
class WorkBudget:
    """Of one connection. Lives on one event loop."""

    allowance: Allowance = field(default_factory=Allowance)
    clock: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.thread_time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random_bits: Callable[[int], int] = getrandbits
    weight: int = field(default=1, init=False)
    """How often the work for the message at hand counts; 0: it is not measured."""
    due: bool = field(default=False, init=False)
    """Enough has been asked for that `wait` is to be called."""
    waited_s: float = field(default=0.0, init=False)
    """That the connection's reader was held back, in all."""
    _spent: _Spent = field(default_factory=_Spent, init=False)
    _buckets: dict[str, Bucket] = field(init=False)
    _over_since_s: float | None = field(default=None, init=False)
    _begun_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        now_s = self.clock()
        names = ("messages", "requests", "size_bytes", "audio_s", "work_s")
        self._buckets = {name: Bucket(getattr(self.allowance, name), now_s) for name in names}

    def message(self, size: int) -> Self:
        """One message of so many bytes; as a context manager, measures what handling it takes."""
        sampled = size <= _SAMPLED_BYTES
        self.weight = (
            1 if not sampled else 0 if self.random_bits(_SAMPLED_BITS) else 1 << _SAMPLED_BITS
        )
        spent = self._spent
        spent.messages += 1
        spent.size_bytes += size
        if spent.messages >= _SETTLE_MESSAGES or spent.size_bytes >= _SETTLE_BYTES:
            self.due = True
        return self

    def __enter__(self) -> Self:
        if self.weight:
            self._begun_s = self.cpu()
        return self

    def __exit__(self, *_: object) -> None:
        if self.weight:
            self.worked((self.cpu() - self._begun_s) * self.weight)
        self.weight = 1

    def worked(self, work_s: float) -> None:
        """Handling took this much CPU time."""
        self._spent.work_s += work_s
        if self._spent.work_s >= _SETTLE_WORK_S:
            self.due = True

    def request(self, count: int = 1) -> None:
        """A message that starts work."""
        self._spent.requests += count

    def heard(self, audio_s: float) -> None:
        """So much of the caller's audio was taken."""
        self._spent.audio_s += audio_s
        if self._spent.audio_s >= _SETTLE_AUDIO_S:
            self.due = True

    def settle(self) -> float:
        """Book what was spent -> seconds for which nothing more is to be read.

        Raises OverBudget when the connection has been over its budget for `patience_s`.
        """
        now_s, spent = self.clock(), self._spent
        self._spent, self.due = _Spent(), False
        delays_s = {
            name: bucket.spend(getattr(spent, name), now_s)
            for name, bucket in self._buckets.items()
        }
        delay_s = max(delays_s.values())
        self._judge({name: s for name, s in delays_s.items() if s and name in _TOLD}, now_s)
        return delay_s

    async def wait(self) -> None:
        """Let others have their turn, and wait for what was spent too much. Raises like `settle`."""
        delay_s = self.settle()
        self.waited_s += delay_s
        await self.sleep(delay_s)

    def _judge(self, over: dict[str, float], now_s: float) -> None:
        if not over:
            if self._over_since_s is not None and self._recovered(now_s):
                self._over_since_s = None
            return
        if self._over_since_s is None:
            self._over_since_s = now_s
        if now_s - self._over_since_s >= self.allowance.patience_s:
            name = max(over, key=over.__getitem__)
            rate = self._buckets[name].rate
            raise OverBudget(
                f"this connection asks for more than {rate.per_s:g} {_TOLD[name]} a second; send less"
            )

    def _recovered(self, now_s: float) -> bool:
        return all(
            self._buckets[name].left(now_s) >= _RECOVERED * self._buckets[name].rate.burst
            for name in _TOLD
        )

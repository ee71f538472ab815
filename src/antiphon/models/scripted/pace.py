"""How long a scripted model takes, and when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

from antiphon.errors import ConfigError, ModelError, suggest


class PaceOptions(TypedDict, total=False):
    """Options that every scripted model takes beside its own."""

    delay_ms: float
    """Before the result, or before the first piece of one."""
    piece_delay_ms: float
    """Before each further piece of a stream: a word of a reply, the audio of a word."""
    fail_on: Sequence[int]
    """Requests that fail, counted from 1."""
    fail_always: bool
    fail_after: int
    """Pieces that a failing stream gives out first."""
    sleep: Callable[[float], None]
    """Instead of `time.sleep`; for tests in Python, that need not wait."""


class Pace:
    """Counts the requests of one model, from whichever thread they come."""

    def __init__(self, what: str, options: PaceOptions) -> None:
        for option in options:
            if option not in PaceOptions.__annotations__:
                known = PaceOptions.__annotations__
                raise ConfigError(f"{what} has no option {option!r}{suggest(option, known)}")
        self._what = what
        self._delay_s = options.get("delay_ms", 0) / 1000
        self._piece_delay_s = options.get("piece_delay_ms", 0) / 1000
        self._fail_on = frozenset(options.get("fail_on", ()))
        self._fail_always = options.get("fail_always", False)
        self._fail_after = options.get("fail_after", 0)
        self._sleep = options.get("sleep", time.sleep)
        self._lock = threading.Lock()
        self._requests = 0

    @property
    def requests(self) -> int:
        """Requests begun so far."""
        return self._requests

    def begin(self) -> Course:
        """A new request."""
        with self._lock:
            self._requests += 1
            number = self._requests
        fails = self._fail_always or number in self._fail_on
        return Course(
            self._what,
            number,
            self._fail_after if fails else None,
            (self._delay_s, self._piece_delay_s),
            self._sleep,
        )

    def pause(self) -> int:
        """A request with one result: take the time it takes, or fail. -> its number, from 1."""
        course = self.begin()
        course.step()
        course.end()
        return course.number


class Course:
    """One request on its way."""

    def __init__(
        self,
        what: str,
        number: int,
        fail_after: int | None,
        delays_s: tuple[float, float],
        sleep: Callable[[float], None],
    ) -> None:
        self.number = number
        self._what = what
        self._fail_after = fail_after
        self._delays_s = delays_s
        self._sleep = sleep
        self._steps = 0

    def step(self) -> None:
        """Before each piece: wait, or raise ModelError when this is where it fails."""
        if self._fail_after is not None and self._steps >= self._fail_after:
            self._fail()
        delay_s = self._delays_s[1 if self._steps else 0]
        if delay_s:
            self._sleep(delay_s)
        self._steps += 1

    def end(self) -> None:
        """After the last piece: a request that is to fail does so even if it had few pieces."""
        if self._fail_after is not None:
            self._fail()

    def _fail(self) -> None:
        raise ModelError(f"{self._what} was told to fail (request {self.number})")

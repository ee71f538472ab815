"""Fallback chains: which model of a kind serves a request, and which one takes over when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from antiphon.errors import ModelError
from antiphon.models.model_handle import ModelHandle
from antiphon.models.ports import Kind, ModelStatus

log = logging.getLogger(__name__)

T = TypeVar("T")

CALL_FAILURES = 2
REST_FAILURES = 4
REST_S = 60.0
_REMEMBERED_CALLS = 1024


@dataclass(frozen=True, slots=True)
class FallbackConfig:
    """The models of one kind, in the order in which they are wanted."""

    kind: Kind
    specs: tuple[str, ...]
    """Each `name` or `name:weights`."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Constructor options by name or by whole spec; those of the whole spec win."""


class FallbackChain:
    """All models of one kind."""

    def __init__(
        self, kind: Kind, links: Sequence[ModelHandle], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.kind = kind
        self.links = tuple(links)
        self._now_s = now_s
        self._in_a_row: dict[ModelHandle, int] = {}
        self._resting: dict[ModelHandle, float] = {}
        """Until when. A model stays here after that time, on trial, until it has answered."""
        self._on_trial: dict[ModelHandle, object] = {}
        """Models of `_resting` that a request is trying right now, and which."""
        self._in_call: dict[str, dict[ModelHandle, int]] = {}

    @property
    def ready(self) -> bool:
        """Some model is loaded and does not rest."""
        return any(link.loaded and not self._rests(link) for link in self.links)

    @property
    def current(self) -> ModelHandle | None:
        """The model that a new call meets: the first that is loaded and well, else any loaded one."""
        loaded = [link for link in self.links if link.loaded]
        return next(
            (link for link in loaded if not self._rests(link)), loaded[0] if loaded else None
        )

    def is_well(self, link: ModelHandle) -> bool:
        """It is loaded, and does not have to prove itself after a rest."""
        return link.loaded and link not in self._resting

    def status(self) -> list[ModelStatus]:
        """Of all models, in order, as of now: one whose rest is over is ready."""
        current = self.current
        return [replace(self._shown(link), in_use=link is current) for link in self.links]

    def _shown(self, link: ModelHandle) -> ModelStatus:
        rested = link.loaded and link in self._resting and not self._rests(link)
        return replace(link.status, state="ready") if rested else link.status

    async def load(self) -> None:
        """Load the first model that can be. Raises ModelError when none can."""
        for index, link in enumerate(self.links):
            if await link.open():
                for other in self.links[index + 1 :]:
                    if other.status.state == "waiting":
                        other.show("standby")
                if index:
                    log.warning("%s: %s is used instead", self.links[0].title, link.spec)
                break
        self._show_use()
        if self.links and self.current is None:
            raise ModelError(f"no {self.kind} model can be loaded: {self._reasons()}")

    async def run(self, ask: Callable[[ModelHandle], Awaitable[T]], call_id: str) -> T:
        """The answer of the first model that gives one. Raises what the last one raised.

        Only a ModelError counts as the model's fault; any other error, a RequestError among them, is
        passed on as it is.
        """
        failure: ModelError | None = None
        async with aclosing(self._candidates(call_id)) as candidates:
            async for link in candidates:
                try:
                    answer = await ask(link)
                except ModelError as error:
                    self.blame(link, call_id, error)
                    failure = error
                else:
                    self.praise(link)
                    return answer
        try:
            raise failure or ModelError(f"no {self.kind} model can be used: {self._reasons()}")
        finally:
            # The error holds this frame, and the request in it: together they would be a cycle.
            del failure

    async def stream(
        self, ask: Callable[[ModelHandle], AsyncGenerator[T, None]], call_id: str
    ) -> AsyncGenerator[T, None]:
        """Like `run` for a stream. Once an item was given out, an error is the consumer's to deal
        with.
        """
        failure: ModelError | None = None
        async with aclosing(self._candidates(call_id)) as candidates:
            async for link in candidates:
                started = False
                try:
                    async with aclosing(ask(link)) as items:
                        async for item in items:
                            if not started:
                                self._answers(link)
                                started = True
                            yield item
                except ModelError as error:
                    self.blame(link, call_id, error)
                    if started:
                        raise
                    failure = error
                else:
                    self.praise(link)
                    return
        try:
            raise failure or ModelError(f"no {self.kind} model can be used: {self._reasons()}")
        finally:
            # The error holds this frame, and the request in it: together they would be a cycle.
            del failure

    def blame(self, link: ModelHandle, call_id: str, error: ModelError) -> None:
        """The model failed in this call."""
        log.warning("%s failed in call %s: %s", link.title, call_id or "-", error)
        failures = self._failures_of(call_id)
        failures[link] = failures.get(link, 0) + 1
        others = len(self.links) > 1
        if others and failures[link] == CALL_FAILURES:
            log.warning(
                "%s failed %d times in call %s: the next model serves the rest of it",
                link.title,
                CALL_FAILURES,
                call_id or "-",
            )
        self._in_a_row[link] = self._in_a_row.get(link, 0) + 1
        if self._in_a_row[link] >= REST_FAILURES:
            self.rest(link, error)

    def praise(self, link: ModelHandle) -> None:
        """The model answered, from beginning to end."""
        self._in_a_row.pop(link, None)
        self._answers(link)
        self._show_use()

    def _answers(self, link: ModelHandle) -> None:
        """Its trial is over, if it was on one; a failure before the end makes it rest at once."""
        self._on_trial.pop(link, None)
        if self._resting.pop(link, None) is not None:
            log.warning("%s works again", link.title)
            link.show("ready", error="")

    def rest(self, link: ModelHandle, error: ModelError, rest_s: float = REST_S) -> None:
        """Do not use the model for a while, if there is another."""
        self._resting[link] = self._now_s() + rest_s
        link.show("failed", error=str(error))
        if len(self.links) > 1:
            log.warning("%s keeps failing: not used for %g s", link.title, rest_s)
        self._show_use()

    def forget(self, call_id: str) -> None:
        """The call has ended."""
        self._in_call.pop(call_id, None)

    async def close(self) -> None:
        for link in self.links:
            await link.close()

    async def _candidates(self, call_id: str) -> AsyncGenerator[ModelHandle, None]:
        """The models to ask, loaded: those that are well; if there is none, whatever can be had."""
        failures = self._in_call.get(call_id, {})
        well = [
            link
            for link in self.links
            if failures.get(link, 0) < CALL_FAILURES
            and (not self._rests(link) if link.loaded else link.status.state != "failed")
        ]
        asked = False
        async with aclosing(self._opened(well)) as opened:
            async for link in opened:
                asked = True
                yield link
        if asked:
            return
        others = [link for link in self.links if link not in well]
        wanted = [link for link in others if link.loaded or not self._rests(link)]
        async with aclosing(self._opened(wanted)) as opened:
            async for link in opened:
                yield link

    async def _opened(self, links: Sequence[ModelHandle]) -> AsyncGenerator[ModelHandle, None]:
        for link in links:
            was_loaded = link.loaded
            if not await link.open():  # a download or an endpoint may come back, but not at once
                self._resting[link] = self._now_s() + REST_S
                continue
            if not was_loaded:
                self._show_use()
            if link not in self._on_trial:
                with self._trial(link):
                    yield link

    @contextmanager
    def _trial(self, link: ModelHandle) -> Iterator[None]:
        """A model that rested is tried by one request at a time."""
        if link not in self._resting:
            yield
            return
        mine = self._on_trial[link] = object()
        try:
            yield
        finally:
            if self._on_trial.get(link) is mine:
                del self._on_trial[link]

    def _rests(self, link: ModelHandle) -> bool:
        return self._resting.get(link, 0.0) > self._now_s()

    def _failures_of(self, call_id: str) -> dict[ModelHandle, int]:
        if call_id not in self._in_call and len(self._in_call) >= _REMEMBERED_CALLS:
            self._in_call.pop(next(iter(self._in_call)))
        return self._in_call.setdefault(call_id, {})

    def _show_use(self) -> None:
        current = self.current
        for link in self.links:
            if link.status.in_use != (link is current):
                link.show(in_use=link is current)

    def _reasons(self) -> str:
        if not self.links:
            return "none is configured"
        return "; ".join(
            f"{link.spec}: {link.status.error or link.status.state}" for link in self.links
        )

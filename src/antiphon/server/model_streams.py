"""The work of a model service: how much is going on, whether more is taken, and an orderly end.

Stands where a voice server has its calls, with the part of `Calls` that health, HTTP routes and the end of the process
ask for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from antiphon.config import Settings
from antiphon.errors import BusyError, NotReadyError
from antiphon.models.model_set import ModelSet, Work
from antiphon.observe.metrics import Metrics
from antiphon.server.admission import failed_kinds

log = logging.getLogger(__name__)

_POLL_S = 0.1


class ModelStream:
    """One client's work with the model."""

    def __init__(self, name: str) -> None:
        self.name = name

    def work(self) -> Work:
        """For the next request to a model: as soon as possible, somebody listens."""
        return Work(self.name)


class ModelStreams:
    """Of one process. Belongs to its event loop."""

    def __init__(self, settings: Settings, models: ModelSet) -> None:
        self.settings = settings
        self.models = models
        self.metrics = Metrics(models)
        self._numbers = itertools.count(1)
        self._open: set[ModelStream] = set()
        self._tidying: set[asyncio.Task[None]] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def draining(self) -> bool:
        """The service is about to end: no more work is taken."""
        return self._draining

    @contextmanager
    def one(self, protocol: str) -> Iterator[ModelStream]:
        """A place, for as long as the context lasts. Raises BusyError, NotReadyError, with what to tell the client."""
        try:
            self._check_room()
        except (BusyError, NotReadyError) as error:
            self.metrics.refused()
            log.info("%s: refused: %s", protocol, error)
            raise
        stream = ModelStream(f"{protocol}-{next(self._numbers)}")
        self._open.add(stream)
        self._empty.clear()
        try:
            yield stream
        finally:
            self._open.discard(stream)
            if not self._open:
                self._empty.set()
            tidying = asyncio.create_task(self.models.release(stream.name))
            self._tidying.add(tidying)
            tidying.add_done_callback(self._tidying.discard)

    def _check_room(self) -> None:
        if self._draining:
            raise BusyError("the service is shutting down; try another or again in a minute")
        if not self.models.ready:
            failed = failed_kinds(self.models.status())
            reason = f"no {failed[0]} model could be loaded" if failed else "the model still loads"
            raise NotReadyError(f"{reason}; see /ready")
        if len(self._open) >= self.settings.server.max_calls:
            raise BusyError("no free channels")  # the words that Kyutai's clients know

    async def drain(self, patience_s: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Take no more work, and let what is on end by itself for so long. What is left loses its connection."""
        self._draining = True
        loop = asyncio.get_running_loop()
        until_s = loop.time() + patience_s
        if self._open:
            log.info("waiting up to %g s for %d streams to end", patience_s, len(self._open))
        while self._open and not hurry() and loop.time() < until_s:
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._empty.wait()
            except TimeoutError:
                pass

"""One model of a fallback chain: constructed, loaded once for all who ask, run through its scheduler, closed."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from antiphon.errors import ModelError, WeightsError
from antiphon.models.duck_typing import Adapted, is_async_function
from antiphon.models.fair_queue import Work
from antiphon.models.ports import Kind, ModelStatus
from antiphon.models.registry import parse_spec
from antiphon.models.scheduler import (
    AsyncScheduler,
    Scheduler,
    SchedulerLimits,
    ThreadScheduler,
    model_error,
)
from antiphon.models.workers import run_in_thread

log = logging.getLogger(__name__)

LOAD_S = 3600.0
"""For one model to be ready, its download included."""
CLOSE_S = 10.0
_ASYNC_PLACES = 64
_SECRET_WORDS = ("key", "secret", "password", "header", "auth", "credential")


class ModelHandle:
    """A model by its spec. Belongs to one event loop once it is opened."""

    def __init__(
        self,
        kind: Kind,
        spec: str,
        construct: Callable[[], Adapted],
        *,
        options: Mapping[str, Any] | None = None,
        limits: SchedulerLimits | None = None,
        on_change: Callable[[ModelStatus], None] | None = None,
    ) -> None:
        self.kind = kind
        self.spec = spec
        self.title = f"{kind} model {spec}"
        self.status = ModelStatus(
            kind,
            parse_spec(spec)[0],
            detail=parse_spec(spec)[1] or "",
            options=_shown(options or {}),
        )
        self.model: Adapted | None = None
        """The adapter around the back end, once constructed."""
        self.scheduler: Scheduler | None = None
        """Where requests go, once loaded. A VAD has none: it is shared in the `VadBatcher`."""
        self.loaded = False
        self._construct = construct
        self._limits = limits or SchedulerLimits()
        self._on_change = on_change
        self._loading: asyncio.Task[None] | None = None

    def show(self, state: str | None = None, **fields: Any) -> None:
        """Change the status, and tell."""
        if state is not None:
            self.status.state = state
        for name, value in fields.items():
            setattr(self.status, name, value)
        if self._on_change is not None:
            self._on_change(replace(self.status))

    def construct(self) -> None:
        """Blocking, for it imports the back end's module.

        Raises ConfigError for an option that the back end does not have; that a module cannot be
        imported is found out by `open`.
        """
        if self.model is None:
            try:
                self.model = self._construct()
            except ModelError as error:
                log.warning("%s: %s", self.title, error)

    async def open(self) -> bool:
        """Load unless it is loaded; many may wait for the same load. -> whether it is loaded."""
        if not self.loaded:
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._load(), name=f"load {self.title}")
            # A caller who goes away does not stop the load: others may wait for it.
            await asyncio.shield(self._loading)
        return self.loaded

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call an optional method of the back end off the scheduler; None when it has none.

        Raises ModelError; TimeoutError after `CLOSE_S`.
        """
        function = None if self.model is None else self.model.optional(method)
        return None if function is None else await self._run(function, *arguments, limit_s=CLOSE_S)

    async def call_in_line(self, method: str, argument: Any, work: Work) -> None:
        """Call an optional method when its turn has come: a blocking one on the scheduler's own thread."""
        function = self.model and self.model.optional(method)
        if not function or self.scheduler is None:
            return
        if isinstance(self.scheduler, ThreadScheduler) and not is_async_function(function):
            await self.scheduler.run(lambda: function(argument), work, always=True)
        else:
            await self.call(method, argument)

    async def call_if_idle(self, method: str, argument: Any, call_id: str) -> bool:
        """Like `call_in_line`, but only if the scheduler has a place at once. -> whether it was done."""
        function = self.model and self.model.optional(method)
        if not function or self.scheduler is None:
            return False
        if isinstance(self.scheduler, ThreadScheduler) and not is_async_function(function):
            return await self.scheduler.run_if_idle(lambda: function(argument), call_id)
        return await self.scheduler.run_if_idle(lambda: self.call(method, argument), call_id)

    async def close(self) -> None:
        """End its requests, then free the model. Never raises."""
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if self.scheduler is not None:
            await self.scheduler.close()
            self.scheduler = None
        if self.loaded:
            self.loaded = False
            try:
                await self.call("close")
            except Exception as error:  # noqa: BLE001 - it is going away anyway
                log.warning("%s did not close: %s", self.title, error)

    async def _load(self) -> None:
        self.show("loading", error="")
        started_s = time.monotonic()
        try:
            if self.model is None:
                self.model = await run_in_thread(
                    self._construct, name=f"antiphon load {self.title}", timeout_s=LOAD_S
                )
            load = self.model.optional("load")
            if load is not None:
                await self._run(load, limit_s=LOAD_S)
            # Not before: a back end may find out in load() how much it can do at once.
            self.scheduler = self._new_lane(self.model)
        except asyncio.CancelledError:
            self.show("failed", error="loading was broken off")
            raise
        except TimeoutError:
            self._fail(f"not loaded within {LOAD_S:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the chain goes on
            self._fail(str(error) if isinstance(error, WeightsError) else self._reason(error))
        else:
            self.loaded = True
            took_s = round(time.monotonic() - started_s, 3)
            info = self.model.info
            log.info("%s loaded in %.1f s (%s)", self.title, took_s, info.detail)
            self.show("ready", detail=info.detail or self.status.detail, load_s=took_s)

    def _reason(self, error: Exception) -> str:
        return str(model_error(self.title, error))

    def _fail(self, reason: str) -> None:
        log.warning("%s cannot be loaded: %s", self.title, reason)
        self.show("failed", error=reason)

    def _new_lane(self, model: Adapted) -> Scheduler | None:
        if self.kind is Kind.VAD:
            return None
        if model.is_async:
            places = model.parallel or _ASYNC_PLACES
            return AsyncScheduler(self.title, places=places, limits=self._limits)
        return ThreadScheduler(self.title, workers=model.parallel or 1, limits=self._limits)

    async def _run(self, function: Callable[..., Any], *arguments: Any, limit_s: float) -> Any:
        """A method of the back end where it belongs: on a thread unless it is a coroutine."""
        if is_async_function(function):
            async with asyncio.timeout(limit_s):
                return await function(*arguments)
        result = await run_in_thread(
            lambda: function(*arguments), name=f"antiphon {self.title}", timeout_s=limit_s
        )
        if inspect.isawaitable(result):
            async with asyncio.timeout(limit_s):
                return await result
        return result


def _shown(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as anybody may see them: the status is public, a key is not."""
    shown: dict[str, Any] = {}
    for name, value in options.items():
        if name.lower().endswith("token") or any(word in name.lower() for word in _SECRET_WORDS):
            shown[name] = "hidden"
        else:
            shown[name] = _shown(value) if isinstance(value, Mapping) else value
    return shown

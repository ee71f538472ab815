"""Speech to text, language model and voice as deployments of Ray Serve: the ports, on deployment handles.

Meant for the call ingress of `deploy/ray/app.py`, whose replicas find the deployments of their own application. These
must answer `describe`, and `transcribe`, `generate`, `warm`, `release` or `synthesize`. Works on the event loop, where
it only waits.

A replica that dies before it has answered is replaced by another one, unseen. Abandoning a stream cancels the request
on its replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from antiphon.errors import AntiphonError, BusyError, ModelError, RequestError
from antiphon.models.ports import (
    LlmDelta,
    LlmRequest,
    ModelInfo,
    Pcm16,
    SpeechRequest,
    Transcript,
    WeightSource,
)
from antiphon.models.stt.silence import is_silent

_ATTEMPTS = 3
"""Replicas asked for one request, when they die under it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a deployment says of its model, by `describe`."""

    info: ModelInfo
    sample_rate_hz: int = 0
    """Of what it synthesises; 0 for the other kinds."""


class ReplicaLostError(ModelError):
    """The replica died, or its node did, before the request was done."""


class RayDeployment:
    """One deployment of an application on Ray Serve, asked within time limits.

    `app`: empty: the application of the replica that this code runs in. `first_s`: longest wait for an answer, or for
    the first item of a stream, the time in Serve's queue included; `next_s`: from one item to the next.
    """

    def __init__(self, name: str, app: str, first_s: float, next_s: float) -> None:
        self.name = name
        self._app = app
        self._first_s, self._next_s = first_s, next_s
        self._handle: Any = None

    async def open(self) -> RemoteFacts:
        """Wait for a replica to be ready, and ask what it has. Raises ModelError with what to do."""
        try:
            from ray import serve
            from ray.serve.exceptions import RayServeException
        except ImportError as error:
            raise ModelError(
                f"Ray Serve is not installed: pip install 'ray[serve]' ({error})"
            ) from error
        try:
            app = self._app or serve.get_replica_context().app_name
            self._handle = serve.get_deployment_handle(self.name, app_name=app)
            # Without a limit of its own: replicas may have weights to fetch, and whoever loads has the limit.
            facts = await self._handle.describe.remote()
        except (RayServeException, KeyError) as error:
            raise ModelError(
                f"no Ray Serve deployment {self.name!r} can be reached: start deploy.ray.app, or set "
                f"the option app ({_line(error)})"
            ) from error
        except Exception as error:
            raise self._explained(error) from error
        if not isinstance(facts, RemoteFacts):
            raise ModelError(f"Ray Serve deployment {self.name!r} does not say what it has")
        return facts

    async def ask(self, method: str, *arguments: Any, session: str = "") -> Any:
        """One answer. Raises ModelError, BusyError; cancelling the wait cancels the request."""
        for attempt in range(1, _ATTEMPTS + 1):
            response = self._method(method, session, stream=False).remote(*arguments)
            try:
                async with asyncio.timeout(self._first_s):
                    return await response
            except (TimeoutError, asyncio.CancelledError) as error:
                response.cancel()
                if isinstance(error, TimeoutError):
                    raise self._silent(self._first_s) from None
                raise
            except Exception as error:
                explained = self._explained(error)
                if not isinstance(explained, ReplicaLostError) or attempt == _ATTEMPTS:
                    raise explained from error
        raise AssertionError("the last attempt returns or raises")

    async def stream(
        self, method: str, *arguments: Any, session: str = ""
    ) -> AsyncGenerator[Any, None]:
        """Items as they come; closing it cancels the request. Raises ModelError, BusyError.

        ReplicaLostError is raised at once when items have come already, else after several attempts.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            begun = False
            async with aclosing(self._once(method, arguments, session)) as items:
                try:
                    async for item in items:
                        begun = True
                        yield item
                    return
                except ReplicaLostError:
                    if begun or attempt == _ATTEMPTS:
                        raise

    async def _once(
        self, method: str, arguments: tuple[Any, ...], session: str
    ) -> AsyncGenerator[Any, None]:
        response = self._method(method, session, stream=True).remote(*arguments)
        items, limit_s, ended = aiter(response), self._first_s, False
        try:
            while True:
                try:
                    async with asyncio.timeout(limit_s):
                        item = await anext(items)
                except StopAsyncIteration:
                    ended = True
                    return
                except TimeoutError:
                    raise self._silent(limit_s) from None
                except Exception as error:
                    ended = True
                    raise self._explained(error) from error
                limit_s = self._next_s
                yield item
        finally:
            if not ended:
                response.cancel()

    def _method(self, name: str, session: str, *, stream: bool) -> Any:
        if self._handle is None:
            raise ModelError(f"Ray Serve deployment {self.name!r} is not loaded")
        options: dict[str, Any] = {"stream": stream, "method_name": name}
        if session:
            options["session_id"] = session
        return self._handle.options(**options)

    def _silent(self, limit_s: float) -> ModelError:
        return ModelError(f"Ray Serve deployment {self.name!r} gave nothing for {limit_s:g} s")

    def _explained(self, error: Exception) -> AntiphonError:
        """In one line and our words: what Ray raises carries whole tracebacks."""
        from ray import exceptions as ray_errors
        from ray.serve import exceptions as serve_errors

        # What a replica raised comes wrapped in a class made of it and of Ray's own.
        cause = getattr(error, "cause", None)
        known = cause if isinstance(cause, AntiphonError) else error
        name = f"Ray Serve deployment {self.name!r}"
        match known:
            case serve_errors.BackPressureError():
                return BusyError(f"{name} has as many requests as it can hold; try again soon")
            case BusyError():
                return BusyError(_line(known))
            case RequestError():
                return known
            case AntiphonError():
                return ModelError(_line(known))
            case (
                ray_errors.RayActorError()
                | ray_errors.ObjectLostError()
                | ray_errors.WorkerCrashedError()
                | serve_errors.ReplicaUnavailableError()
            ):
                return ReplicaLostError(f"{name}: a replica was lost during the request")
            case serve_errors.DeploymentUnavailableError():
                return ModelError(f"{name} could not be started; `serve status` says why")
            case _:
                return ModelError(f"{name} failed: {type(error).__name__}: {_line(cause or error)}")


class _Remote:
    """What the three ports share. `deployment`: its name in the application."""

    parallel = 256
    """How many requests are put to Serve at a time; its own limits decide how many are let in."""

    def __init__(self, kind: str, deployment: RayDeployment) -> None:
        self._remote = deployment
        self.info = ModelInfo("ray", f"{kind} by deployment {deployment.name}")
        self.facts = RemoteFacts(self.info)

    async def load(self) -> None:
        """Wait for the deployment. Raises ModelError with what to do."""
        self.facts = await self._remote.open()
        there = self.facts.info
        detail = f"{there.name}, {there.detail}".removesuffix(", ")
        self.info = replace(there, name="ray", detail=f"{detail} by {self._remote.name}")

    async def close(self) -> None:
        """Replicas belong to Serve."""


class RayStt(_Remote):
    """The `SpeechToText` port."""

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        app: str = "",
        deployment: str = "Stt",
        timeout_s: float = 15.0,
    ) -> None:
        del weights  # they are the replicas'
        super().__init__("stt", RayDeployment(deployment, app, timeout_s, timeout_s))

    async def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence is not sent. Raises ModelError, BusyError."""
        if is_silent(audio):
            return Transcript("", language)
        heard = await self._remote.ask("transcribe", np.asarray(audio), language, partial)
        return _expected(heard, Transcript)


class RayLlm(_Remote):
    """The `LanguageModel` port. Requests of one call go to the same replica, which has read its history already."""

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        app: str = "",
        deployment: str = "Llm",
        timeout_s: float = 20.0,
        next_s: float = 10.0,
    ) -> None:
        del weights  # they are the replicas'
        super().__init__("llm", RayDeployment(deployment, app, timeout_s, next_s))

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        """Closing it stops the replica. Raises ModelError (also when a reply breaks off), BusyError."""
        stream = self._remote.stream("generate", request, session=request.call_id)
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                yield _expected(delta, LlmDelta)

    async def warm(self, request: LlmRequest) -> None:
        """Have the prompt read where the reply will be made."""
        await self._remote.ask("warm", request, session=request.call_id)

    async def release(self, call_id: str) -> None:
        """The call has ended."""
        await self._remote.ask("release", call_id, session=call_id)


class RayTts(_Remote):
    """The `TextToSpeech` port. A clause that breaks off is made again elsewhere, and goes on where it broke off."""

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        app: str = "",
        deployment: str = "Tts",
        timeout_s: float = 20.0,
        next_s: float = 10.0,
    ) -> None:
        del weights  # they are the replicas'
        super().__init__("tts", RayDeployment(deployment, app, timeout_s, next_s))

    @property
    def sample_rate_hz(self) -> int:
        """Of everything `synthesize` yields; known after `load()`."""
        return self.facts.sample_rate_hz

    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Pcm16]:
        """int16 [n] at `sample_rate_hz`. Closing it stops the replica. Raises ModelError, BusyError."""
        given = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with aclosing(self._beyond(given, request)) as pieces:
                    async for pcm in pieces:
                        given += pcm.size
                        yield pcm
                return
            except ReplicaLostError:
                if attempt == _ATTEMPTS:
                    raise

    async def _beyond(self, heard: int, request: SpeechRequest) -> AsyncGenerator[Pcm16, None]:
        """Without the first `heard` samples: they were given out before a replica was lost."""
        async with aclosing(self._remote.stream("synthesize", request)) as pieces:
            async for piece in pieces:
                skipped = min(heard, piece.size)
                heard -= skipped
                if skipped < piece.size:
                    yield piece[skipped:]


def _expected(found: Any, kind: type[T]) -> T:
    if not isinstance(found, kind):
        raise ModelError(f"a Ray Serve replica answered with {type(found).__name__}")
    return found


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

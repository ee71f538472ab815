"""What the routes share: a place to work at, errors in OpenAI's shape, an end when the client has gone."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from antiphon.config import Settings
from antiphon.errors import (
    AntiphonError,
    AudioError,
    BusyError,
    ModelError,
    RequestError,
    told,
)
from antiphon.json_body import BadRequest
from antiphon.models.model_set import ModelSet, Work
from antiphon.server.admission import Calls, failed_kinds
from antiphon.server.http_errors import RequestRefused
from antiphon.server.security import Principal, authorize, check_left, spend

log = logging.getLogger(__name__)
T = TypeVar("T")

Admitted = Annotated[Principal, Depends(authorize)]
"""A route's parameter: the request is let in, or answered with 401, 403 or 429."""

_SLACK_MS = 2_000
"""Somebody on a call is waiting: what came over HTTP goes after what a call asked up to this much later."""
_RETRY_S = 5
_NOBODY = 499
"""nginx's number for a client that closed the connection; nobody reads it."""


class RequestSlots:
    """How many requests are at work, and how many may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._tidying: set[asyncio.Task[None]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises Refused (429)."""
        if self.taken >= self.limit:
            raise RequestRefused(
                429,
                f"{self.limit} requests are being worked on already; try again soon",
                "rate_limit_exceeded",
                retry_after_s=_RETRY_S,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def tidy(self, models: ModelSet, job_id: str) -> None:
        """Models forget the request. Not waited for: the language model may be busy with somebody else."""
        task = asyncio.create_task(models.release(job_id), name=f"release {job_id}")
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)


class RequestJob:
    """One request that is being worked on, on somebody's account."""

    def __init__(self, request: Request, principal: Principal) -> None:
        calls: Calls = request.app.state.calls
        self.models: ModelSet = calls.models
        self.settings: Settings = calls.settings
        self.id = f"http-{secrets.token_hex(6)}"
        self._request = request
        self._principal = principal

    def work(self) -> Work:
        """For the next request to a model."""
        now_ms = int(asyncio.get_running_loop().time() * 1000)
        return Work(self.id, now_ms + _SLACK_MS)

    def spend(self, seconds: float) -> None:
        """Audio heard or made, on the account of the key."""
        spend(self._request, self._principal, seconds)


@asynccontextmanager
async def job_for(request: Request, principal: Principal) -> AsyncIterator[RequestJob]:
    """A place among the requests at work. Raises Refused when there is none, and for a key that has used its day."""
    calls: Calls = request.app.state.calls
    check_left(request, principal)
    if calls.draining:
        raise _not_now("the server is shutting down; try again in a minute")
    if not calls.models.ready:
        failed = failed_kinds(calls.models.status())
        reason = f"no {failed[0]} model could be loaded" if failed else "the models still load"
        raise _not_now(f"{reason}; see /ready")
    places: RequestSlots = request.app.state.places
    job = RequestJob(request, principal)
    request.state.job_id = job.id
    with places.one():
        try:
            yield job
        finally:
            places.tidy(calls.models, job.id)


def _not_now(message: str) -> RequestRefused:
    return RequestRefused(503, message, "not_ready", retry_after_s=_RETRY_S)


@contextmanager
def openai_errors(reference: str = "") -> Iterator[None]:
    """Errors of ours, as refusals with the status that OpenAI's clients expect.

    `reference`: the id under which the log has more.
    """
    try:
        yield
    except RequestRefused:
        raise
    except BadRequest as error:
        raise RequestRefused(400, str(error), error.code, param=error.param) from None
    except RequestError as error:
        raise RequestRefused(400, str(error), error.code, param=error.param) from None
    except AudioError as error:
        raise RequestRefused(400, str(error), "invalid_audio", param="file") from None
    except BusyError as error:
        raise RequestRefused(
            429, str(error), "rate_limit_exceeded", retry_after_s=_RETRY_S
        ) from None
    except AntiphonError as error:
        log.warning("%s: answered with 503: %s", reference or "a request", error)
        raise RequestRefused(
            503, told(error, reference), "model_error", retry_after_s=_RETRY_S
        ) from None
    except TimeoutError:
        raise RequestRefused(
            504, "it took too long; send less at a time", "timeout", retry=False
        ) from None


async def finish(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The work's answer. It is cancelled when the client goes away, and when it takes too long.

    Only for requests whose body has been read. Raises Refused.
    """
    limit_s = request.app.state.settings.server.max_request_s
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_until_gone(request))
    try:
        with openai_errors(getattr(request.state, "job_id", "")):
            async with asyncio.timeout(limit_s):
                await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else Response(status_code=_NOBODY)
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class StreamedBody(StreamingResponse):
    """A body that is sent as it is made. Its generator is closed, whatever happens to the connection.

    An error in mid-stream breaks the connection off: a proper end would pass for a whole answer.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes, None],
        held: AsyncExitStack,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        limit_s: float,
    ) -> None:
        """`held`: what the body needs, freed after it: the place, the model."""
        super().__init__(body, media_type=media_type, headers=headers)
        self._body = body
        self._held = held
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held, aclosing(self._body):
            try:
                async with asyncio.timeout(self._limit_s):
                    await super().__call__(scope, receive, send)
            except* (AntiphonError, TimeoutError) as group:
                reason = str(group.exceptions[0]) or "it took too long"
                log.warning("an answer was broken off: %s", reason)


async def stream(
    request: Request,
    body: AsyncGenerator[bytes, None],
    held: AsyncExitStack,
    *,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """`body` as an answer, once its first piece is there: what fails before that has a status of its own.

    Takes over `held` (which holds `job_for`). Raises Refused.
    """
    limit_s = request.app.state.settings.server.max_request_s
    first: list[bytes] = []

    async def begin() -> Response:
        async for piece in body:
            first.append(piece)
            break
        return Response()

    async def whole() -> AsyncGenerator[bytes, None]:
        async with aclosing(body):
            for piece in first:
                yield piece
            async for piece in body:
                yield piece

    mine = AsyncExitStack()
    mine.push_async_exit(held.pop_all())
    mine.push_async_callback(body.aclose)
    async with mine:
        answer = await finish(request, begin())
        if answer.status_code == _NOBODY:
            return answer
        return StreamedBody(
            whole(), mine.pop_all(), media_type=media_type, headers=headers, limit_s=limit_s
        )


def model_name(models: ModelSet, kind: Any) -> str:
    """Of the model in use, for answers and lists."""
    try:
        return models.info(kind).name
    except ModelError:
        return ""

"""A request that is refused, and how OpenAI's clients want to be told.

Knows the shape of the answer and nothing of why it is given.
"""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from antiphon.errors import AntiphonError

_CLOSE_POLICY = 1008
_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}


class RequestRefused(AntiphonError):
    """A request or connection that is not served. Raised by a route, it becomes the answer, websockets included."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        retry: bool = True,
    ) -> None:
        """`status`: of HTTP. `code`, `param`: as in OpenAI's errors. `retry` False: clients should not try again."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers: dict[str, str] = {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        if not retry:
            self.headers["x-should-retry"] = "false"  # the OpenAI SDK's word for it

    def response(self) -> Response:
        return JSONResponse(
            error_body(self.status, str(self), self.code, self.param), self.status, self.headers
        )


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """`{"error": {...}}` with all four members."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def answer_refused(connection: HTTPConnection, error: Exception) -> Any:
    """Exception handler: a response for HTTP, None for a websocket, as Starlette wants it.

    A websocket that is not open yet gets the same answer, with its real status.
    """
    assert isinstance(error, RequestRefused)
    if not isinstance(connection, WebSocket):
        return error.response()
    if "websocket.http.response" in connection.scope.get("extensions", {}):
        await connection.send_denial_response(error.response())
    else:
        await connection.close(_CLOSE_POLICY, str(error)[:120])
    return None


async def answer_http_error(connection: HTTPConnection, error: Exception) -> Any:
    """Exception handler: FastAPI's `detail`, and beside it the object in which OpenAI's clients look."""
    if isinstance(connection, WebSocket):
        await connection.close(_CLOSE_POLICY)
        return None
    if isinstance(error, RequestValidationError):
        status, headers = 422, None
        detail: Any = [
            {"type": e["type"], "loc": e["loc"], "msg": e["msg"]} for e in error.errors()
        ]
        message = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in detail)
    else:
        assert isinstance(error, HTTPException)
        status, headers, detail = error.status_code, error.headers, error.detail
        message = detail if isinstance(detail, str) else str(status)
    return JSONResponse({"detail": detail, **error_body(status, message)}, status, headers)

"""The token of a service, where Kyutai's clients put it: a header or a query of their own.

Knows no protocol beyond that; who is let in is for `server.security` to say.
"""

from __future__ import annotations

import logging
import re
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from antiphon.server.security import Principal, authorize

_HEADER = "kyutai-api-key"
_QUERY = "auth_id"
_SHOWN = re.compile(r"(auth_id=)[^&\s\"]*")


async def authorize_moshi(connection: HTTPConnection) -> Principal:
    """`kyutai-api-key`, else `auth_id`, counts as a bearer token. Raises Refused."""
    key = connection.headers.get(_HEADER) or connection.query_params.get(_QUERY, "")
    if not key or "authorization" in connection.headers:
        return await authorize(connection)
    bearer = (b"authorization", b"Bearer " + key.encode("latin-1", "replace"))
    scope = {**connection.scope, "headers": [*connection.scope["headers"], bearer]}
    return await authorize(HTTPConnection(scope))


MoshiAdmitted = Annotated[Principal, Depends(authorize_moshi)]
"""A route's parameter: the request is let in, or answered with 401, 403 or 429."""


def hide_tokens(record: logging.LogRecord) -> bool:
    """A filter of log records: a web server writes queries down."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _SHOWN.sub(r"\1...", argument) if isinstance(argument, str) else argument
            for argument in record.args
        )
    return True

"""Bodies of requests: JSON -> a struct, or an error that names the field."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from antiphon.errors import ProtocolError

T = TypeVar("T")
_WHERE = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_REQUIRED = re.compile(r"missing required field `(?P<name>\w+)`")


class BadRequest(ProtocolError):
    """A request that cannot be answered as it is."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        """`param`: the field that is wrong. `code`: OpenAI's word for the fault."""
        super().__init__(message)
        self.param = param
        self.code = code or "invalid_value"


def parse(kind: type[T], body: bytes) -> T:
    """Raises BadRequest. Fields that the struct does not have are ignored: clients send what is new."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadRequest("the body is not a JSON object; check how it is sent") from None


def _explained(text: str) -> BadRequest:
    where = _WHERE.search(text)
    path = where["path"] if where else ""
    reason = _WHERE.sub("", text)
    if missing := _REQUIRED.search(reason):
        name = f"{path}.{missing['name']}" if path else missing["name"]
        return BadRequest(
            f"the field {name!r} is missing; add it", name, "missing_required_parameter"
        )
    reason = reason[:1].lower() + reason[1:]
    if not path:
        return BadRequest(f"the body is not as it should be: {reason}")
    return BadRequest(f"{path}: {reason}", path, "invalid_type")

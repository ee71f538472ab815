"""What goes wrong with a client's event, as the protocol says it. Knows no event by name."""

from __future__ import annotations

from typing import Any

from antiphon.errors import ProtocolError

MAX_EVENT_ID_CHARS = 512


class PeerError(ProtocolError):
    """An event that cannot be obeyed. The session lives on."""

    def __init__(
        self,
        message: str,
        code: str = "invalid_value",
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        """`code`: a stable word for programs. `param`: path of the field that is wrong. `kind`: the error's `type`."""
        super().__init__(message)
        self.code = code
        self.param = param
        self.kind = kind

    def body(self, event_id: str | None = None) -> dict[str, Any]:
        """The `error` object. `event_id`: of the client's event that caused it."""
        return {
            "type": self.kind,
            "code": self.code,
            "message": str(self),
            "param": self.param,
            "event_id": event_id,
        }

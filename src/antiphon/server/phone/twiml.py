"""TwiML, Twilio's call markup: elements, the document, and the verbs that every webhook uses. Knows no call.

Source: https://www.twilio.com/docs/voice/twiml
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from starlette.responses import Response

HANG_UP = "<Hangup/>"
_CONTROL = {code: None for code in range(32) if code not in (9, 10, 13)}


def document(*verbs: str) -> Response:
    """The answer to a webhook. Twilio wants 200 even for bad news."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Response>{"".join(verbs)}</Response>'
    return Response(body, media_type="text/xml")


def element(name: str, text: str = "", /, **attributes: str) -> str:
    """One element. Text and values are escaped; an attribute that is empty is left out."""
    given = "".join(
        f" {key}={quoteattr(value.translate(_CONTROL))}"
        for key, value in attributes.items()
        if value
    )
    return f"<{name}{given}>{escape(text.translate(_CONTROL))}</{name}>"


def say(text: str) -> str:
    return element("Say", text)


def connect_stream(url: str, parameters: Mapping[str, str], *, status_url: str = "") -> str:
    """The call's audio goes both ways over a websocket; what follows runs when we have closed it."""
    inner = "".join(element("Parameter", name=n, value=v) for n, v in parameters.items())
    status = f" statusCallback={quoteattr(status_url)}" if status_url else ""
    return f"<Connect><Stream url={quoteattr(url)}{status}>{inner}</Stream></Connect>"

"""TwiML, Twilio's call markup: elements, the document, and the verbs that the webhooks use.

Source: https://www.twilio.com/docs/voice/twiml

Source: Twilio's TwiML reference for Voice.
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


REJECT_BUSY = '<Reject reason="busy"/>'
"""For a call that was not taken yet: the caller hears the busy tone, and nobody pays."""


def text_of(*verbs: str) -> str:
    """A whole document, for a REST call that brings its TwiML along."""
    return f"<Response>{''.join(verbs)}</Response>"


def say_in(text: str, language: str) -> str:
    """In a voice of the carrier's. `language`: ISO 639-1, empty: the carrier's choice."""
    return element("Say", text, language=language)


def play(url: str) -> str:
    return element("Play", url)


def pause(seconds: int) -> str:
    return element("Pause", length=str(seconds))


def redirect(url: str) -> str:
    return element("Redirect", url, method="POST")


def dial(number: str) -> str:
    """`number`: E.164, or a SIP address."""
    name = "Sip" if "@" in number else "Number"
    return f"<Dial>{element(name, number)}</Dial>"


def record(action: str, *, silence_s: int, max_s: int) -> str:
    """The caller's words, without a beep, to `action`. After silence alone the next verb is run instead."""
    return element(
        "Record",
        action=action,
        method="POST",
        timeout=str(silence_s),
        maxLength=str(max_s),
        finishOnKey="#",
        playBeep="false",
    )

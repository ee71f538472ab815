"""Twilio asks what to do with a call: `POST /voice-stream` (and `/`, where one number is all there is).

The answer connects the call to `/media-stream` with a token that is good once. Knows no audio.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from fastapi.responses import Response

from antiphon.errors import AntiphonError
from antiphon.server.calls import Calls
from antiphon.server.phone import twiml
from antiphon.server.phone.context import phone_of
from antiphon.server.phone.tokens import Ticket

log = logging.getLogger(__name__)
router = APIRouter()

STREAM_PATH = "/media-stream"
STATUS_PATH = "/stream-status"
TOKEN = "token"  # noqa: S105  (a parameter's name)
_BUSY = "Sorry, all our lines are busy. Please call again in a few minutes. Goodbye."
_FACTS = ("CallerName", "ForwardedFrom", "FromCity", "FromState", "FromCountry", "StirVerstat")


@router.post("/voice-stream")
@router.post("/", include_in_schema=False)
async def voice_stream(request: Request) -> Response:
    """A call has come in: TwiML that streams it to us, or that says we are busy."""
    phone, calls = phone_of(request), _calls(request)
    form = await phone.guard.webhook(request)
    call_id = form.first("CallSid")
    if not call_id:
        return Response("this is a webhook for Twilio's calls: CallSid is missing", 400)
    try:
        calls.check_room()
    except AntiphonError as error:
        log.warning("phone: %s turned away: %s", call_id, error)
        return twiml.document(twiml.say(_BUSY), twiml.HANG_UP)
    outbound = form.first("Direction").startswith("outbound")
    ends = (form.first("From"), form.first("To"))
    caller, called = reversed(ends) if outbound else ends
    facts = {name: form.first(name) for name in _FACTS if form.first(name)}
    token = phone.tokens.issue(Ticket(call_id, caller, called, outbound, facts=facts))
    return twiml.document(stream_verb(request, token))


def stream_verb(request: Request, token: str) -> str:
    """`<Connect><Stream>` to this server, for a token of `Phone.tokens`."""
    guard = phone_of(request).guard
    return twiml.connect_stream(
        guard.stream_base_url(request) + STREAM_PATH,
        {TOKEN: token},
        status_url=guard.base_url(request) + STATUS_PATH,
    )


@router.post(STATUS_PATH, include_in_schema=False)
async def stream_status(request: Request) -> Response:
    """What Twilio has to say about a stream: only its errors are worth a line."""
    form = await phone_of(request).guard.webhook(request)
    error = form.first("StreamError")
    if error or form.first("StreamEvent") == "stream-error":
        log.warning("phone: %s: Twilio reports of its stream: %.300s", form.first("CallSid"), error)
    return Response(status_code=204)


def _calls(request: Request) -> Calls:
    calls = request.app.state.calls
    assert isinstance(calls, Calls)
    return calls

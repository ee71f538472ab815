"""The webhooks of the recorded flow: `/voice` and what its documents lead to. Knows no model.

Addresses in the documents are relative, so that they are right behind every proxy and prefix.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from antiphon.errors import AntiphonError
from antiphon.server.phone import twiml, verbs
from antiphon.server.phone.context import phone_of
from antiphon.server.phone.desk import desk_of
from antiphon.server.phone.recorded import Taken
from antiphon.server.phone.signature import Form

log = logging.getLogger(__name__)
router = APIRouter(tags=["phone"])


async def _form(request: Request) -> Form:
    """A genuine webhook's. Raises Refused, HTTPException."""
    form = await phone_of(request).guard.webhook(request)
    if not form.first("CallSid"):
        raise HTTPException(400, "this is a webhook for telephone calls: CallSid is missing")
    return form


@router.post("/voice")
async def voice(request: Request) -> Response:
    """A call has come in: greet, then record."""
    form = await _form(request)
    desk = desk_of(request)
    try:
        desk.calls.check_room()
    except AntiphonError as error:
        log.warning("call %s turned away: %s", form.first("CallSid"), error)
        return twiml.document(verbs.REJECT_BUSY)
    return twiml.document(await desk.recorded.begin(form.first("CallSid")))


@router.post("/voice/recorded")
async def recorded(request: Request) -> Response:
    """The caller has spoken: `RecordingUrl` says where."""
    form = await _form(request)
    calls, call_sid = desk_of(request).recorded, form.first("CallSid")
    if form.first("Digits") == "hangup" or form.first("CallStatus") == "completed":
        calls.end(call_sid)
        return twiml.document()
    url = form.first("RecordingUrl")
    if not url or form.first("RecordingDuration") == "0":
        return twiml.document(await calls.silent(call_sid))
    taken = Taken(call_sid, url, form.first("RecordingSid") or url)
    return twiml.document(await calls.take(taken))


@router.post("/voice/wait")
async def wait(request: Request) -> Response:
    """The answer was not ready: is it now?"""
    form = await _form(request)
    return twiml.document(await desk_of(request).recorded.wait(form.first("CallSid")))


@router.post("/voice/silent")
async def silent(request: Request) -> Response:
    """Nothing was recorded."""
    form = await _form(request)
    return twiml.document(await desk_of(request).recorded.silent(form.first("CallSid")))


@router.api_route("/voice/audio/{name}", methods=["GET", "HEAD"], include_in_schema=False)
async def audio(request: Request, name: str, expires: str = "", signature: str = "") -> Response:
    """A sound file, while its address is good. The address itself is the key."""
    try:
        sound = desk_of(request).shelf.get(name, expires, signature)
    except PermissionError:
        raise HTTPException(403, "this address was not given out by this server") from None
    if sound is None:
        raise HTTPException(410, "this sound is no longer kept")
    return Response(
        sound.data, media_type=sound.content_type, headers={"Cache-Control": "private, max-age=600"}
    )

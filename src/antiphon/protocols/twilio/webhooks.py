"""Twilio's webhooks: calls that come in, recorded calls, and calls that we make.

The answer connects the call to `/media-stream` with a token that is good once.

Addresses in the documents are relative, so that they are right behind every proxy and prefix.

Making a call costs money, so it takes a key, or a program on this machine.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from antiphon.errors import AntiphonError, BusyError, ProtocolError
from antiphon.protocols.twilio import twiml
from antiphon.protocols.twilio.outbound import ANSWERED, STATUS, Dialled, Order, is_machine
from antiphon.protocols.twilio.phone_services import PhoneServices, phone_of, phone_services_of
from antiphon.protocols.twilio.recorded_calls import Taken
from antiphon.protocols.twilio.rest import TwilioError
from antiphon.protocols.twilio.signature import Form
from antiphon.protocols.twilio.stream_tokens import Ticket
from antiphon.server.admission import Calls, agent_of
from antiphon.server.security import authorize, before_the_body, gate_of
from antiphon.telephony import call_log

log = logging.getLogger(__name__)
stream_webhooks = APIRouter()

STREAM_PATH = "/media-stream"
STATUS_PATH = "/stream-status"
TOKEN = "token"  # noqa: S105  (a parameter's name)
_BUSY = "Sorry, all our lines are busy. Please call again in a few minutes. Goodbye."
_FACTS = ("CallerName", "ForwardedFrom", "FromCity", "FromState", "FromCountry", "StirVerstat")


@stream_webhooks.post("/voice-stream")
@stream_webhooks.post("/", include_in_schema=False)
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


@stream_webhooks.post(STATUS_PATH, include_in_schema=False)
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


recorded_webhooks = APIRouter(tags=["phone"])


async def _form(request: Request) -> Form:
    """A genuine webhook's. Raises Refused, HTTPException."""
    form = await phone_of(request).guard.webhook(request)
    if not form.first("CallSid"):
        raise HTTPException(400, "this is a webhook for telephone calls: CallSid is missing")
    return form


@recorded_webhooks.post("/voice")
async def voice(request: Request) -> Response:
    """A call has come in: greet, then record."""
    form = await _form(request)
    services = phone_services_of(request)
    try:
        services.calls.check_room()
    except AntiphonError as error:
        log.warning("call %s turned away: %s", form.first("CallSid"), error)
        return twiml.document(twiml.REJECT_BUSY)
    return twiml.document(await services.recorded.begin(form.first("CallSid")))


@recorded_webhooks.post("/voice/recorded")
async def recorded(request: Request) -> Response:
    """The caller has spoken: `RecordingUrl` says where."""
    form = await _form(request)
    calls, call_sid = phone_services_of(request).recorded, form.first("CallSid")
    if form.first("Digits") == "hangup" or form.first("CallStatus") == "completed":
        calls.end(call_sid)
        return twiml.document()
    url = form.first("RecordingUrl")
    if not url or form.first("RecordingDuration") == "0":
        return twiml.document(await calls.silent(call_sid))
    taken = Taken(call_sid, url, form.first("RecordingSid") or url)
    return twiml.document(await calls.take(taken))


@recorded_webhooks.post("/voice/wait")
async def wait(request: Request) -> Response:
    """The answer was not ready: is it now?"""
    form = await _form(request)
    return twiml.document(await phone_services_of(request).recorded.wait(form.first("CallSid")))


@recorded_webhooks.post("/voice/silent")
async def silent(request: Request) -> Response:
    """Nothing was recorded."""
    form = await _form(request)
    return twiml.document(await phone_services_of(request).recorded.silent(form.first("CallSid")))


@recorded_webhooks.api_route(
    "/voice/audio/{name}", methods=["GET", "HEAD"], include_in_schema=False
)
async def audio(request: Request, name: str, expires: str = "", signature: str = "") -> Response:
    """A sound file, while its address is good. The address itself is the key."""
    try:
        sound = phone_services_of(request).media_store.get(name, expires, signature)
    except PermissionError:
        raise HTTPException(403, "this address was not given out by this server") from None
    if sound is None:
        raise HTTPException(410, "this sound is no longer kept")
    return Response(
        sound.data, media_type=sound.content_type, headers={"Cache-Control": "private, max-age=600"}
    )


outbound_webhooks = APIRouter(tags=["phone"])


async def _may_dial(request: Request) -> None:
    principal = await authorize(request)
    if principal.key is None and not gate_of(request).is_local(request):
        raise HTTPException(403, "calls are made with a key; make one with `antiphon keys create`")


dialling = APIRouter(tags=["phone"], route_class=before_the_body(_may_dial))


@dialling.post("/calls", status_code=201)
async def dial(request: Request, order: Order) -> JSONResponse:
    """Make a call. The answer has its id; `GET /calls/{id}` says how it goes."""
    try:
        call = await phone_services_of(request).outbound.dial(order)
    except BusyError as error:
        raise HTTPException(503, str(error)) from None
    except TwilioError as error:
        raise HTTPException(502, str(error)) from None
    except ProtocolError as error:
        raise HTTPException(400, str(error)) from None
    except AntiphonError as error:
        raise HTTPException(409, str(error)) from None
    return JSONResponse(call.public(), 201)


@outbound_webhooks.get("/calls/{key}", dependencies=[Depends(_may_dial)])
async def state(request: Request, key: str) -> JSONResponse:
    call = phone_services_of(request).outbound.find(key)
    if call is None:
        raise HTTPException(404, "no such call was made lately")
    return JSONResponse(call.public())


@outbound_webhooks.post(STATUS)
async def status(request: Request, dial: str = "") -> Response:
    """How a call goes. Answered at once, whatever it says."""
    form = await phone_of(request).guard.webhook(request)
    services = phone_services_of(request)
    call = services.outbound.find(dial)
    if call is not None:
        _note(services, call, form)
    if form.first("CallStatus") in ("completed", "busy", "failed", "no-answer", "canceled"):
        services.recorded.end(form.first("CallSid"))
    return Response(status_code=204)


@outbound_webhooks.post(ANSWERED)
async def answered(request: Request, dial: str = "") -> Response:
    """Somebody has taken a call of ours: a stream for people; for a machine, what the owner wants."""
    form = await phone_of(request).guard.webhook(request)
    services = phone_services_of(request)
    call = services.outbound.find(dial)
    if call is None or not form.first("CallSid"):
        log.warning("a call was taken that nobody here has made; it is ended")
        return twiml.document(twiml.HANG_UP)
    _note(services, call, form)
    if is_machine(call.answered_by):
        what, message = services.outbound.voicemail(call)
        log.info("call %s: %s has answered: %s", call.sid, call.answered_by, what)
        if what == "message" and call.answered_by != "fax":
            agent = call.order.agent.over(agent_of(services.calls.settings))
            said = await services.voice.say(message, agent, "../voice/")
            return twiml.document(said, twiml.HANG_UP)
        if what != "ignore" or call.answered_by == "fax":
            return twiml.document(twiml.HANG_UP)
    return _connect(request, services, call, form)


def _connect(request: Request, services: PhoneServices, call: Dialled, form: Form) -> Response:
    try:
        services.calls.check_room()
    except AntiphonError as error:
        log.warning("call %s: taken, but %s", call.sid, error)
        return twiml.document(twiml.HANG_UP)
    chosen = call.order.agent
    ticket = Ticket(
        form.first("CallSid"),
        caller=form.first("To"),
        called=form.first("From"),
        outbound=True,
        agent=chosen.over(agent_of(services.calls.settings)),
        greeting=chosen.greeting,
    )
    return twiml.document(stream_verb(request, phone_of(request).tokens.issue(ticket)))


def _note(services: PhoneServices, call: Dialled, form: Form) -> None:
    call.sid = call.sid or form.first("CallSid")
    duration = form.first("CallDuration")
    services.outbound.note(
        call,
        form.first("CallStatus"),
        answered_by=form.first("AnsweredBy"),
        duration_s=int(duration) if duration.isascii() and duration.isdecimal() else None,
    )


def include(app: FastAPI) -> None:
    """Add the routes."""
    app.include_router(stream_webhooks)
    app.include_router(call_log.router)  # before `/calls/{key}`
    app.include_router(recorded_webhooks)
    app.include_router(dialling)
    app.include_router(outbound_webhooks)

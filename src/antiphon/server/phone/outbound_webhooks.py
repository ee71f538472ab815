"""Routes of calls that we make: `POST /calls` asks for one, Twilio asks what to say and says how it goes.

Making a call costs money, so it takes a key, or a program on this machine. Knows no model.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from antiphon.errors import AntiphonError, BusyError, ProtocolError
from antiphon.server.calls import agent_of
from antiphon.server.phone import twiml
from antiphon.server.phone.context import phone_of
from antiphon.server.phone.desk import Desk, desk_of
from antiphon.server.phone.outbound import ANSWERED, STATUS, Dialled, Order, is_machine
from antiphon.server.phone.rest import TwilioError
from antiphon.server.phone.signature import Form
from antiphon.server.phone.tokens import Ticket
from antiphon.server.phone.webhooks import stream_verb
from antiphon.server.security import authorize, before_the_body, gate_of

log = logging.getLogger(__name__)
router = APIRouter(tags=["phone"])


async def _may_dial(request: Request) -> None:
    principal = await authorize(request)
    if principal.key is None and not gate_of(request).is_local(request):
        raise HTTPException(403, "calls are made with a key; make one with `antiphon keys create`")


dialling = APIRouter(tags=["phone"], route_class=before_the_body(_may_dial))


@dialling.post("/calls", status_code=201)
async def dial(request: Request, order: Order) -> JSONResponse:
    """Make a call. The answer has its id; `GET /calls/{id}` says how it goes."""
    try:
        call = await desk_of(request).outbound.dial(order)
    except BusyError as error:
        raise HTTPException(503, str(error)) from None
    except TwilioError as error:
        raise HTTPException(502, str(error)) from None
    except ProtocolError as error:
        raise HTTPException(400, str(error)) from None
    except AntiphonError as error:
        raise HTTPException(409, str(error)) from None
    return JSONResponse(call.public(), 201)


@router.get("/calls/{key}", dependencies=[Depends(_may_dial)])
async def state(request: Request, key: str) -> JSONResponse:
    call = desk_of(request).outbound.find(key)
    if call is None:
        raise HTTPException(404, "no such call was made lately")
    return JSONResponse(call.public())


@router.post(STATUS)
async def status(request: Request, dial: str = "") -> Response:
    """How a call goes. Answered at once, whatever it says."""
    form = await phone_of(request).guard.webhook(request)
    desk = desk_of(request)
    call = desk.outbound.find(dial)
    if call is not None:
        _note(desk, call, form)
    if form.first("CallStatus") in ("completed", "busy", "failed", "no-answer", "canceled"):
        desk.recorded.end(form.first("CallSid"))
    return Response(status_code=204)


@router.post(ANSWERED)
async def answered(request: Request, dial: str = "") -> Response:
    """Somebody has taken a call of ours: a stream for people; for a machine, what the owner wants."""
    form = await phone_of(request).guard.webhook(request)
    desk = desk_of(request)
    call = desk.outbound.find(dial)
    if call is None or not form.first("CallSid"):
        log.warning("a call was taken that nobody here has made; it is ended")
        return twiml.document(twiml.HANG_UP)
    _note(desk, call, form)
    if is_machine(call.answered_by):
        what, message = desk.outbound.voicemail(call)
        log.info("call %s: %s has answered: %s", call.sid, call.answered_by, what)
        if what == "message" and call.answered_by != "fax":
            agent = call.order.agent.over(agent_of(desk.calls.settings))
            said = await desk.voice.say(message, agent, "../voice/")
            return twiml.document(said, twiml.HANG_UP)
        if what != "ignore" or call.answered_by == "fax":
            return twiml.document(twiml.HANG_UP)
    return _connect(request, desk, call, form)


def _connect(request: Request, desk: Desk, call: Dialled, form: Form) -> Response:
    try:
        desk.calls.check_room()
    except AntiphonError as error:
        log.warning("call %s: taken, but %s", call.sid, error)
        return twiml.document(twiml.HANG_UP)
    chosen = call.order.agent
    ticket = Ticket(
        form.first("CallSid"),
        caller=form.first("To"),
        called=form.first("From"),
        outbound=True,
        agent=chosen.over(agent_of(desk.calls.settings)),
        greeting=chosen.greeting,
    )
    return twiml.document(stream_verb(request, phone_of(request).tokens.issue(ticket)))


def _note(desk: Desk, call: Dialled, form: Form) -> None:
    call.sid = call.sid or form.first("CallSid")
    duration = form.first("CallDuration")
    desk.outbound.note(
        call,
        form.first("CallStatus"),
        answered_by=form.first("AnsweredBy"),
        duration_s=int(duration) if duration.isascii() and duration.isdecimal() else None,
    )

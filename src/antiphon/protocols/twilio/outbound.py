"""Calls that we make: asked for at the REST API, followed by status callbacks, and told apart from answering machines.

Callbacks come in any order, late and twice, so a call's state only ever moves forward through `_RANK`, and a final one
stays. Bounded; in memory, like the tokens of streams.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from antiphon.call.model_tasks import Agent
from antiphon.config.sections import PhoneSettings
from antiphon.errors import AntiphonError, BusyError, ConfigError, ProtocolError
from antiphon.protocols.twilio.rest import NewCall, TwilioRest, dialable

log = logging.getLogger(__name__)

MAX_CALLS = 500
MAX_LIVE = 100
_LONGEST_CALL_S = 4 * 3600.0
"""Twilio's own limit."""
_RANK = {"": -1, "queued": 0, "initiated": 1, "ringing": 2, "in-progress": 3}
_FINAL = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
ANSWERED, STATUS = "/calls/answered", "/calls/status"

Voicemail = Literal["hang-up", "message", "ignore"]


class DialAgent(BaseModel):
    """Who calls: what is not given is as configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = Field(None, max_length=20_000)
    greeting: str | None = Field(None, max_length=1_000)
    voice: str | None = Field(None, max_length=100)
    language: str | None = Field(None, max_length=20)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=4_000)
    speed: float | None = Field(None, ge=0.5, le=2)
    voicemail: Voicemail | None = None
    voicemail_message: str | None = Field(None, max_length=1_000)

    def over(self, agent: Agent) -> Agent:
        names = ("prompt", "voice", "language", "temperature", "max_tokens", "speed")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(agent, **given)


class Order(BaseModel):
    """A call to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str = Field(max_length=200)
    from_number: str = Field("", max_length=200)
    record: bool | None = None
    """None: `phone.record_call`."""
    amd: bool = False
    """Twilio listens for an answering machine first. Otherwise we do, while we talk."""
    agent: DialAgent = DialAgent()


@dataclass(slots=True)
class Dialled:
    """A call that was asked for."""

    order: Order
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """In the addresses of its webhooks."""
    sid: str = ""
    status: str = "queued"
    answered_by: str = ""
    duration_s: int | None = None

    asked_s: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        return self.status in _FINAL

    @property
    def live(self) -> bool:
        """Not over, as far as callbacks say; after some hours they must have been lost."""
        return not self.over and time.monotonic() - self.asked_s < _LONGEST_CALL_S

    def public(self) -> dict[str, Any]:
        return {
            "id": self.key,
            "call_sid": self.sid,
            "to": self.order.to,
            "status": self.status,
            "answered_by": self.answered_by,
            "duration_s": self.duration_s,
            "over": self.over,
        }


class OutboundCalls:
    def __init__(self, phone: PhoneSettings, rest: TwilioRest | None) -> None:
        """`rest` None: there is no account, and no call can be made."""
        self._phone = phone
        self._rest = rest
        self._calls: OrderedDict[str, Dialled] = OrderedDict()

    def _check_prefix(self, to: str) -> None:
        prefixes = self._phone.dial_prefixes
        if prefixes and not dialable(to).startswith(prefixes):
            raise ProtocolError(
                f"calls go to numbers that begin with {', '.join(prefixes)}; see phone.dial_prefixes"
            )

    async def dial(self, order: Order) -> Dialled:
        """Raises ConfigError, ProtocolError for a number that is none, BusyError, TwilioError."""
        public_url = self._phone.public_url
        if self._rest is None:
            raise ConfigError(
                "calls are made with phone.account_sid and phone.auth_token; set both"
            )
        if not public_url:
            raise ConfigError("calls are made with phone.public_url, where Twilio asks what to say")
        if sum(call.live for call in self._calls.values()) >= MAX_LIVE:
            raise BusyError(f"{MAX_LIVE} calls that we made are on; try again when one has ended")
        self._check_prefix(order.to)
        call = Dialled(order)
        self._calls[call.key] = call
        self._forget_old()
        record = self._phone.record_call if order.record is None else order.record
        asked = NewCall(
            to=order.to,
            from_number=order.from_number,
            url=f"{public_url}{ANSWERED}?dial={call.key}",
            status_url=f"{public_url}{STATUS}?dial={call.key}",
            amd=order.amd,
            record=record,
        )
        try:
            made = await self._rest.create_call(asked)
        except AntiphonError:
            call.status = "failed"
            raise
        call.sid = made.sid
        self.note(call, made.status)  # a callback may have been faster
        return call

    def find(self, key: str) -> Dialled | None:
        return self._calls.get(key)

    def of_sid(self, call_sid: str) -> Dialled | None:
        return next((c for c in reversed(self._calls.values()) if c.sid == call_sid), None)

    def note(
        self, call: Dialled, status: str, *, answered_by: str = "", duration_s: int | None = None
    ) -> None:
        """What a callback, a webhook or the REST API says of it. Never moves a call back."""
        if not call.over and (status in _FINAL or _RANK.get(status, -1) > _RANK[call.status]):
            call.status = status
            log.info("call %s that we made: %s", call.sid or "(no name yet)", status)
        call.answered_by = answered_by or call.answered_by
        if duration_s is not None:
            call.duration_s = duration_s

    def voicemail(self, call: Dialled) -> tuple[Voicemail, str]:
        """What to do with an answering machine, and the message."""
        agent = call.order.agent
        message = (
            self._phone.voicemail_message
            if agent.voicemail_message is None
            else agent.voicemail_message
        )
        chosen = agent.voicemail or self._phone.voicemail
        return ("hang-up" if chosen == "message" and not message else chosen), message

    def _forget_old(self) -> None:
        """Calls that are over go first."""
        while len(self._calls) > MAX_CALLS:
            key = next((k for k, c in self._calls.items() if c.over), next(iter(self._calls)))
            del self._calls[key]


def is_machine(answered_by: str) -> bool:
    """Twilio's `AnsweredBy`: `machine_start`, `machine_end_beep`, `machine_end_silence`, `machine_end_other`, `fax`."""
    return answered_by.startswith(("machine", "fax"))

"""Twilio's REST API, as far as calls need it: one pooled client, time limits, and repeats only where they are safe.

Any server that imitates `/2010-04-01/Accounts/...` will do (`phone.rest_base_url`). What may be repeated: reading,
deleting, and setting a call to a state, since doing that twice is doing it once. A new call is asked for again only
when it surely was not begun: no connection, or 429.

Source: Twilio's REST reference, error codes as of 2026.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from antiphon.config.sections import PhoneSettings
from antiphon.errors import AntiphonError, ConfigError, ProtocolError
from antiphon.protocols.twilio import twiml

_API = "/2010-04-01/Accounts"
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=60.0)
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_MAX_ANSWER_BYTES = 1 << 20
_NUMBER = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)
_SIP = re.compile(r"sips?:[\w.+%~-]+@[\w.:-]+", re.ASCII)
_SID = re.compile(r"[A-Za-z]{2}[0-9A-Za-z_-]{1,62}", re.ASCII)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

ADVICE = {
    20003: "check phone.account_sid and phone.auth_token against the console's first page",
    20008: "test credentials cannot do this; use the live ones",
    20404: "the call, number or recording is not there (any more), or belongs to another account",
    20429: "too many requests at once; try again in a moment",
    21205: "set phone.public_url to an https address that Twilio can reach",
    21210: "phone.from_number is not a number of this account; buy or verify it in the console",
    21211: "write the number as +, country and number: +15550100",
    21212: "set phone.from_number to a number of this account: +15550100",
    21215: "allow the country in the console: Voice, Settings, Geo permissions",
    21216: "Twilio has blocked this destination for the account; ask its support",
    21217: "write the number as +, country and number: +15550100",
    21219: "a trial account calls verified numbers only; verify it in the console or upgrade",
    21220: "the call is not in progress any more",
    21262: "check phone.public_url: Twilio refuses the address of a status callback",
    21401: "that does not look like a phone number; write it as +15550100",
}
"""Twilio's error code -> what to do about it."""
_GONE = frozenset({20404, 21220})


class TwilioError(AntiphonError):
    """The REST API refused. `code` is Twilio's (0: none was given), `status` that of HTTP (0: no answer)."""

    def __init__(self, message: str, *, code: int = 0, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class RestCall:
    sid: str
    status: str
    """`queued`, `initiated`, `ringing`, `in-progress`, `completed`, `busy`, `failed`, `no-answer`, `canceled`."""
    answered_by: str = ""
    """`human`, `machine_start`, ...; empty: nobody looked."""


@dataclass(frozen=True, slots=True)
class StoredRecording:
    sid: str
    status: str
    duration_s: int = 0


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to be made."""

    to: str
    url: str = ""
    """Asked for TwiML when it is taken; empty: `twiml` says what happens."""
    twiml: str = ""
    from_number: str = ""
    """Empty: `phone.from_number`."""
    status_url: str = ""
    amd: bool = False
    """Twilio listens whether a machine has answered, to the end of its greeting, before it asks for TwiML."""
    record: bool = False
    ring_s: int = 45


Pause = Callable[[float], Awaitable[None]]


class TwilioRest:
    """Of one account. Close it, or use it as a context. Every method raises TwilioError."""

    def __init__(self, phone: PhoneSettings, *, pause: Pause = asyncio.sleep) -> None:
        """Raises ConfigError without credentials. `pause`: instead of sleeping between attempts, for tests."""
        token = phone.auth_token.get_secret_value()
        if not phone.account_sid or not token:
            raise ConfigError(
                "Twilio's REST API needs phone.account_sid and phone.auth_token; both are on the console's first page"
            )
        if not _SID.fullmatch(phone.account_sid):
            raise ConfigError("phone.account_sid is not an account SID; it begins with AC")
        self._account = phone.account_sid
        self._from_number = phone.from_number
        self._pause = pause
        self._http = httpx.AsyncClient(
            base_url=phone.rest_base_url.rstrip("/"),
            auth=(phone.account_sid, token),
            timeout=_TIMEOUT,
            limits=_LIMITS,
            headers={"User-Agent": "antiphon"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    # -- calls ----------------------------------------------------------------------------------

    async def create_call(self, call: NewCall) -> RestCall:
        if not (call.from_number or self._from_number):
            raise ConfigError(
                "a call needs a caller ID; set phone.from_number to a number of yours"
            )
        form = {
            "To": dialable(call.to),
            "From": dialable(call.from_number or self._from_number),
            "Timeout": str(call.ring_s),
            **({"Url": call.url, "Method": "POST"} if call.url else {"Twiml": call.twiml}),
        }
        if call.status_url:
            form |= {"StatusCallback": call.status_url, "StatusCallbackMethod": "POST"}
        if call.amd:
            form["MachineDetection"] = "DetectMessageEnd"
        if call.record:
            form |= {"Record": "true", "RecordingChannels": "dual"}
        events = ("initiated", "ringing", "answered", "completed") if call.status_url else ()
        pairs = {**form, "StatusCallbackEvent": list(events)} if events else form
        return _call(await self._ask("POST", "/Calls.json", pairs, once=True))

    async def fetch_call(self, call_sid: str) -> RestCall:
        return _call(await self._ask("GET", f"/Calls/{_sid(call_sid)}.json"))

    async def update_call(self, call_sid: str, **form: str) -> RestCall:
        """`Status="completed"`, `Twiml=...`, `Url=...`: the call is set to it, however often that is said."""
        return _call(await self._ask("POST", f"/Calls/{_sid(call_sid)}.json", form))

    async def hang_up(self, call_sid: str) -> None:
        """A call that is over already is fine."""
        try:
            await self.update_call(call_sid, Status="completed")
        except TwilioError as error:
            if error.code not in _GONE and error.status != 404:
                raise

    async def transfer(self, call_sid: str, number: str, announcement: str = "") -> None:
        """Connect the caller to `number` (E.164 or a SIP address). The media stream of the call ends with that."""
        first = twiml.say(announcement) if announcement else ""
        document = twiml.text_of(first, twiml.dial(dialable(number)))
        await self.update_call(call_sid, Twiml=document)

    # -- recordings -----------------------------------------------------------------------------

    async def start_recording(self, call_sid: str) -> StoredRecording:
        """Stereo: the caller left, we right."""
        path = f"/Calls/{_sid(call_sid)}/Recordings.json"
        return _recording(await self._ask("POST", path, {"RecordingChannels": "dual"}, once=True))

    async def stop_recording(self, call_sid: str, recording_sid: str) -> StoredRecording:
        path = f"/Calls/{_sid(call_sid)}/Recordings/{_sid(recording_sid)}.json"
        return _recording(await self._ask("POST", path, {"Status": "stopped"}))

    async def fetch_recording(self, recording_sid: str) -> StoredRecording:
        return _recording(await self._ask("GET", f"/Recordings/{_sid(recording_sid)}.json"))

    async def delete_recording(self, recording_sid: str) -> None:
        """One that is gone already is fine."""
        try:
            await self._ask("DELETE", f"/Recordings/{_sid(recording_sid)}.json")
        except TwilioError as error:
            if error.status != 404:
                raise

    # -- the account ----------------------------------------------------------------------------

    async def account(self) -> dict[str, Any]:
        return await self._ask("GET", ".json")

    async def number(self, phone_number: str) -> dict[str, Any] | None:
        """What the account has configured for one of its numbers; None: it has no such number."""
        query = httpx.QueryParams({"PhoneNumber": phone_number})
        found = await self._ask("GET", f"/IncomingPhoneNumbers.json?{query}")
        numbers = found.get("incoming_phone_numbers")
        return numbers[0] if isinstance(numbers, list) and numbers else None

    # -- one request ----------------------------------------------------------------------------

    async def _ask(
        self, method: str, path: str, form: Mapping[str, Any] | None = None, *, once: bool = False
    ) -> dict[str, Any]:
        """`once`: doing it twice is not doing it once."""
        url = f"{_API}/{self._account}{path}"
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS
            try:
                answer = await self._http.request(method, url, data=form)
            except httpx.HTTPError as error:
                if last or (once and not isinstance(error, _NOT_SENT)):
                    raise self._no_answer(error, once) from None
                await self._pause(_pause_s(attempt, None))
                continue
            busy = answer.status_code == 429 or (answer.status_code >= 500 and not once)
            if not busy or last:
                return _read(answer)
            await self._pause(_pause_s(attempt, answer.headers.get("retry-after")))
        raise AssertionError("unreachable")

    def _no_answer(self, error: httpx.HTTPError, once: bool) -> TwilioError:
        unsure = once and not isinstance(error, _NOT_SENT)
        todo = (
            "it may have been done all the same: look before you repeat it"
            if unsure
            else "check phone.rest_base_url and this machine's network"
        )
        host = self._http.base_url.host
        return TwilioError(f"no answer from {host} ({type(error).__name__}); {todo}")


def dialable(number: str) -> str:
    """The number without spaces and dashes, or the SIP address. Raises ProtocolError for anything else."""
    bare = number.strip() if "@" in number else re.sub(r"[\s().-]", "", number)
    if _NUMBER.fullmatch(bare) or _SIP.fullmatch(bare):
        return bare
    raise ProtocolError(f"{number[:40]!r} is not a number to call; write it as +15550100")


def _sid(sid: str) -> str:
    """It becomes part of a path. Raises ProtocolError."""
    if not _SID.fullmatch(sid):
        raise ProtocolError(f"{sid[:40]!r} is not a Twilio SID")
    return sid


def _pause_s(attempt: int, retry_after: str | None) -> float:
    """What the server asks for, else twice as long each time, with some chance in it."""
    try:
        return min(max(float(retry_after or ""), 0.0), _LONGEST_PAUSE_S)
    except ValueError:
        pause_s: float = _FIRST_PAUSE_S * 2 ** (attempt - 1)
        return min(pause_s * random.uniform(0.75, 1.25), _LONGEST_PAUSE_S)


def _read(answer: httpx.Response) -> dict[str, Any]:
    body: Any = {}
    if len(answer.content) <= _MAX_ANSWER_BYTES:
        try:
            body = answer.json() if answer.content else {}
        except ValueError:
            body = None
    if answer.is_success and isinstance(body, dict):
        return body
    code = body.get("code") if isinstance(body, dict) else None
    raise _refusal(answer.status_code, code if isinstance(code, int) else 0, body)


def _refusal(status: int, code: int, body: Any) -> TwilioError:
    said = str(body.get("message", "")) if isinstance(body, dict) else ""
    said = " ".join(said.split())[:200] or f"HTTP {status}"
    if code == 0:
        code = {401: 20003, 404: 20404, 429: 20429}.get(status, 0)
    if status < 300:
        todo = "its answer is not that of Twilio's API; check phone.rest_base_url"
    elif status >= 500:
        todo = "trouble at Twilio; see status.twilio.com"
    else:
        todo = ADVICE.get(code, f"see twilio.com/docs/errors/{code}" if code else "see the log")
    label = f"error {code}" if code else f"HTTP {status}"
    return TwilioError(f"Twilio, {label}: {said}; {todo}", code=code, status=status)


def _call(body: Mapping[str, Any]) -> RestCall:
    return RestCall(_text(body, "sid"), _text(body, "status"), _text(body, "answered_by"))


def _recording(body: Mapping[str, Any]) -> StoredRecording:
    duration = _text(body, "duration")
    return StoredRecording(
        _text(body, "sid"), _text(body, "status"), int(duration) if duration.isdecimal() else 0
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return "" if value is None else str(value)

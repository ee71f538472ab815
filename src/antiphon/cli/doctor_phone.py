"""`antiphon doctor --phone`: the telephone from outside in, in the order in which a call comes.

Credentials, the REST API, the number's webhook, the public address, signatures, the websocket. Nothing is changed and
nobody is called; the webhook is asked once with a signed request, as Twilio would ask it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree

import httpx

from antiphon.cli.doctor_checks import FAIL, OK, WARN, Finding
from antiphon.config import Settings
from antiphon.config.sections import PhoneSettings
from antiphon.errors import AntiphonError

_TIMEOUT_S = 10.0
_WEBHOOKS = ("/voice-stream", "/voice", "/")
_UPGRADE = "/media-stream"


def check_phone(settings: Settings) -> Iterator[Finding]:
    """Every check whose requirements are there."""
    phone = settings.phone
    yield from check_credentials(phone)
    if phone.account_sid and phone.auth_token.get_secret_value():
        yield from check_rest(phone)
    yield from check_public(phone)


def check_credentials(phone: PhoneSettings) -> Iterator[Finding]:
    token = phone.auth_token.get_secret_value()
    console = "it is on the first page of the Twilio console"
    if not phone.account_sid:
        yield Finding("phone account", FAIL, "phone.account_sid is not set", f"set it; {console}")
    elif not re.fullmatch(r"AC[0-9a-f]{32}", phone.account_sid):
        found = "phone.account_sid is not AC and 32 hexadecimal digits"
        yield Finding("phone account", FAIL, found, f"copy it again; {console}")
    else:
        yield Finding("phone account", OK, "account SID set")
    if not token:
        found = "phone.auth_token is not set: webhooks cannot be checked, others are not served"
        yield Finding("phone token", FAIL, found, f"set it; {console}")
    elif not re.fullmatch(r"[0-9a-f]{32}", token):
        found = "phone.auth_token does not look like one (32 hexadecimal digits)"
        yield Finding("phone token", WARN, found, f"copy it again; {console}")
    else:
        yield Finding("phone token", OK, "auth token set")
    if phone.from_number and not re.fullmatch(r"\+[1-9][0-9]{6,14}", phone.from_number):
        found = f"phone.from_number is {phone.from_number!r}"
        yield Finding("phone number", FAIL, found, "write it as +15550100")
    elif not phone.from_number:
        found = (
            "phone.from_number is not set: no calls can be made, and its webhook is not looked at"
        )
        yield Finding("phone number", WARN, found, "set it to a number of your account")


# --- the carrier ------------------------------------------------------------------------------------


def check_rest(phone: PhoneSettings) -> Iterator[Finding]:
    """The account, and where its number sends calls."""
    try:
        account, number = asyncio.run(_look_up(phone))
    except AntiphonError as error:
        found, _, todo = str(error).rpartition("; ")
        yield Finding("phone REST", FAIL, found or str(error), todo)
        return
    status = str(account.get("status", ""))
    if status != "active":
        found = f"the account is {status or 'in an unknown state'}"
        yield Finding(
            "phone REST", FAIL, found, "look into the console's billing and account pages"
        )
    elif account.get("type") == "Trial":
        found = "credentials valid, a trial account"
        yield Finding("phone REST", WARN, found, "callers hear a notice first; upgrade to end that")
    else:
        yield Finding("phone REST", OK, "credentials valid, the account is active")
    if phone.from_number:
        yield _check_number(phone, number)


async def _look_up(phone: PhoneSettings) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from antiphon.protocols.twilio.rest import TwilioRest

    async with TwilioRest(phone) as rest:
        account = await rest.account()
        return account, await rest.number(phone.from_number) if phone.from_number else None


def _check_number(phone: PhoneSettings, number: dict[str, Any] | None) -> Finding:
    name, wanted = "phone webhook", f"{phone.public_url or 'https://YOUR-ADDRESS'}/voice-stream"
    place = "console: Phone numbers, Manage, Active numbers, A call comes in"
    if number is None:
        todo = "set phone.from_number to a number of this account, or buy one"
        return Finding(name, FAIL, f"{phone.from_number} is not a number of this account", todo)
    url, method = str(number.get("voice_url") or ""), str(number.get("voice_method") or "POST")
    if not url:
        return Finding(name, FAIL, "the number has no webhook", f"enter {wanted}, POST ({place})")
    ours = [f"{phone.public_url}{path}" for path in _WEBHOOKS] + [phone.public_url]
    if phone.public_url and url not in ours:
        return Finding(name, FAIL, f"calls go to {url}", f"enter {wanted}, POST ({place})")
    if method.upper() != "POST":
        return Finding(name, FAIL, f"the webhook is asked by {method}", f"choose POST ({place})")
    return Finding(name, OK, f"calls go to {url}")


# --- our own address --------------------------------------------------------------------------------


def check_public(phone: PhoneSettings) -> Iterator[Finding]:
    """The webhook as Twilio asks it, with and without a signature, and the stream's websocket."""
    name, url = "phone address", phone.public_url
    if not url:
        todo = "start a tunnel (docs/howto/phone.md) and set PUBLIC_URL to its address"
        yield Finding(name, FAIL, "phone.public_url is not set", todo)
        return
    if not url.startswith("https://"):
        todo = "Twilio streams to wss:// only; use the https address of your tunnel or proxy"
        yield Finding(name, WARN, f"{url} is not https", todo)
    answer = _ask_webhook(phone, signed=True)
    if isinstance(answer, str):
        todo = "is `antiphon serve` running, and the tunnel? does it lead to this port?"
        yield Finding(name, FAIL, f"{url} cannot be reached: {answer}", todo)
        return
    yield Finding(name, OK, f"{url} answers")
    yield from _check_twiml(phone, answer)
    yield _check_upgrade(phone)


def _ask_webhook(phone: PhoneSettings, *, signed: bool) -> httpx.Response | str:
    """-> the answer of `/voice-stream`, or why there is none."""
    url = f"{phone.public_url}/voice-stream"
    form = {
        "CallSid": f"CA{secrets.token_hex(16)}",
        "AccountSid": phone.account_sid,
        "From": "+15550100",
        "To": phone.from_number or "+15550199",
        "CallStatus": "ringing",
        "Direction": "inbound",
    }
    headers = _signature(phone, url, form) if signed else {}
    try:
        return httpx.post(url, data=form, headers=headers, timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__


def _signature(phone: PhoneSettings, url: str, form: dict[str, str]) -> dict[str, str]:
    token = phone.auth_token.get_secret_value()
    if not token:
        return {}
    try:
        from twilio.request_validator import RequestValidator
    except ImportError:
        return {}
    return {"X-Twilio-Signature": str(RequestValidator(token).compute_signature(url, form))}


def _check_twiml(phone: PhoneSettings, answer: httpx.Response) -> Iterator[Finding]:
    if answer.status_code == 403:
        todo = (
            "the running server has another auth token or public URL than these settings; its log names the address "
            "that it computed over"
        )
        yield Finding("phone signature", FAIL, "a signed request is refused", todo)
        return
    if not answer.is_success:
        found = f"/voice-stream answers {answer.status_code}"
        yield Finding("phone TwiML", FAIL, found, "is it Antiphon behind this address? see its log")
        return
    if _is_stream(answer):
        yield Finding("phone TwiML", OK, "/voice-stream answers <Connect><Stream>")
    else:
        todo = "busy or not ready: see /ready; otherwise another server answers here"
        yield Finding("phone TwiML", WARN, "/voice-stream answers without a <Stream>", todo)
    if not phone.auth_token.get_secret_value():
        return
    unsigned = _ask_webhook(phone, signed=False)
    if isinstance(unsigned, httpx.Response) and unsigned.status_code == 403:
        yield Finding("phone signature", OK, "signed requests are served, others refused")
    else:
        todo = "start the server with the same phone.auth_token; anybody can place calls now"
        yield Finding("phone signature", FAIL, "a request without a signature is served", todo)


def _is_stream(answer: httpx.Response) -> bool:
    try:
        root = ElementTree.fromstring(answer.text)
    except ElementTree.ParseError:
        return False
    return root.find("Connect/Stream") is not None


def _check_upgrade(phone: PhoneSettings) -> Finding:
    name = "phone stream"
    parts = urlsplit(phone.public_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    url = urlunsplit((scheme, parts.netloc, parts.path + _UPGRADE, "", ""))
    try:
        asyncio.run(_upgrade(url, _signature(phone, url, {})))
    except Exception as error:  # noqa: BLE001  (whatever a proxy may do)
        found = f"{url} does not upgrade: {' '.join(str(error).split())[:120]}"
        todo = (
            "let the proxy pass websockets: HTTP/1.1, Upgrade and Connection headers, no sign-in page "
            "(this is Twilio's error 31920)"
        )
        return Finding(name, FAIL, found, todo)
    return Finding(name, OK, f"{url} upgrades to a websocket")


async def _upgrade(url: str, headers: dict[str, str]) -> None:
    from websockets.asyncio.client import connect

    async with connect(url, additional_headers=headers, open_timeout=_TIMEOUT_S, close_timeout=2):
        pass

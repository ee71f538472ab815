"""The carrier's HTTP side: webhooks asked as Twilio asks them, with its form fields and its signature.

Signatures are made by the `twilio` package, so that a server is checked against Twilio's own arithmetic.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

import httpx

from antiphon.client.phone import twiml_parser
from antiphon.errors import ConfigError, ProtocolError

TIMEOUT_S = 15.0
"""Twilio waits this long for a webhook (error 11200)."""
_SIGNATURE = "X-Twilio-Signature"
_XML = ("text/xml", "application/xml", "application/twiml+xml")


def _sid(prefix: str) -> str:
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class PhoneNumbers:
    """Who calls whom, and with which secret the carrier signs."""

    from_number: str = "+15550100"
    to_number: str = "+15550199"
    auth_token: str = field(default="", repr=False)
    """Empty: nothing is signed."""
    public_url: str = ""
    """What the server believes its address to be, e.g. `https://voice.example.org`: signatures are made over it."""
    api_key: str = field(default="", repr=False)
    """Sent instead of a signature to a server that has keys and no auth token."""
    account_sid: str = "AC" + "0" * 32
    call_sid: str = field(default_factory=lambda: _sid("CA"))
    stream_sid: str = field(default_factory=lambda: _sid("MZ"))

    def fields(self, status: str = "in-progress") -> dict[str, str]:
        """The form fields of every voice webhook."""
        return {
            "CallSid": self.call_sid,
            "AccountSid": self.account_sid,
            "From": self.from_number,
            "To": self.to_number,
            "Caller": self.from_number,
            "Called": self.to_number,
            "CallStatus": status,
            "Direction": "inbound",
            "ApiVersion": "2010-04-01",
            "FromCity": "",
            "FromState": "",
            "FromZip": "",
            "FromCountry": "US",
            "ToCountry": "US",
        }

    def signature(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
        """The header to send with a request to `url`: without a token the key, or none. Raises ConfigError without
        `twilio`.
        """
        if not self.auth_token:
            return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            from twilio.request_validator import RequestValidator
        except ImportError:
            raise ConfigError(
                "signatures need the twilio package: pip install 'antiphon[phone]'"
            ) from None
        validator = RequestValidator(self.auth_token)
        signed = validator.compute_signature(self.seen_as(url), dict(form or {}))
        return {_SIGNATURE: str(signed)}

    def seen_as(self, url: str) -> str:
        """The URL as the server's owner gave it to Twilio."""
        if not self.public_url:
            return url
        public, asked = urlsplit(self.public_url), urlsplit(url)
        scheme = public.scheme
        if asked.scheme in ("ws", "wss"):
            scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
        path = public.path.rstrip("/") + asked.path
        return urlunsplit((scheme, public.netloc, path, asked.query, ""))


class Webhooks:
    """One call's HTTP requests, over one pooled client. Use as an async context manager."""

    def __init__(self, line: PhoneNumbers) -> None:
        self._line = line
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False)

    async def __aenter__(self) -> Webhooks:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def ask(
        self,
        url: str,
        extra: Mapping[str, str] | None = None,
        *,
        status: str = "in-progress",
        method: str = "POST",
    ) -> list[twiml_parser.Verb]:
        """What the webhook says to do. Raises ProtocolError with Twilio's error code."""
        answer = await self._send(method, url, {**self._line.fields(status), **(extra or {})})
        if not answer.is_success:
            why = (
                "check the signature, the token and the public URL"
                if answer.status_code == 403
                else ""
            )
            why = why or answer.text[:200].strip()
            raise ProtocolError(f"11200: {url} answered {answer.status_code}: {why}")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _XML:
            raise ProtocolError(f"12300: {url} answered {kind or 'no content type'}, not text/xml")
        return twiml_parser.parse(answer.content, url)

    async def tell(self, url: str, extra: Mapping[str, str]) -> str:
        """A status callback, whose answer is ignored -> what went wrong, or an empty string."""
        try:
            answer = await self._send("POST", url, {**self._line.fields(), **extra})
        except ProtocolError as error:
            return str(error)
        return "" if answer.is_success else f"{url} answered {answer.status_code}"

    async def fetch(self, url: str) -> bytes:
        """A file to play. Raises ProtocolError."""
        answer = await self._send("GET", url, None)
        if not answer.is_success:
            raise ProtocolError(f"11200: <Play> of {_bare(url)} was answered {answer.status_code}")
        return answer.content

    async def _send(self, method: str, url: str, form: Mapping[str, str] | None) -> httpx.Response:
        posted = form if method == "POST" else None
        target = httpx.URL(url)
        if form and method == "GET":
            target = target.copy_merge_params(dict(form))
        headers = self._line.signature(str(target), posted)
        try:
            # httpx leaves out nothing: empty values are part of what is signed.
            return await self._http.request(
                method,
                target,
                data=dict(posted) if posted else None,
                headers=headers,
                follow_redirects=method == "GET",
            )
        except httpx.TimeoutException:
            raise ProtocolError(
                f"11200: {_bare(url)} did not answer within {TIMEOUT_S:.0f} s"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProtocolError(f"11200: {_bare(url)} cannot be reached: {error}") from None


def _bare(url: str) -> str:
    """Without the query, which may hold a signed token."""
    return url.partition("?")[0]

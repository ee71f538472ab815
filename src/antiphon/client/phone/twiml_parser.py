"""TwiML -> verbs: what a voice webhook tells the carrier to do. Only what the simulated caller can follow.

Attribute names and defaults are those of Twilio's reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

from antiphon.errors import ProtocolError

MAX_BYTES = 64 * 1024
"""Twilio takes no longer documents."""
_MAX_PARAMETER_CHARS = 500
_ANY_KEY = "1234567890*#"


@dataclass(frozen=True, slots=True)
class StreamVerb:
    """`<Connect><Stream>`: the call's audio goes to a websocket, both ways."""

    url: str
    parameters: dict[str, str] = field(default_factory=dict)
    status_callback: str = ""

    def faults(self) -> list[str]:
        """What Twilio would not take of it, though a simulated caller can."""
        found = []
        parts = urlsplit(self.url)
        if parts.query:
            found.append("31920: a stream's URL takes no query string; use <Parameter>")
        if parts.scheme != "wss":
            found.append("31922: Twilio connects to wss:// only")
        for name, value in self.parameters.items():
            if len(name) + len(value) > _MAX_PARAMETER_CHARS:
                found.append(
                    f"the parameter {name} is longer than {_MAX_PARAMETER_CHARS} characters"
                )
        return found


@dataclass(frozen=True, slots=True)
class RecordVerb:
    """The caller is recorded until they are silent or press a key; then `action` is asked what to do next."""

    action: str
    method: str = "POST"
    timeout_s: float = 5.0
    """Of silence; 0: none."""
    finish_keys: str = _ANY_KEY
    max_length_s: float = 3600.0
    trim: bool = True
    status_callback: str = ""


@dataclass(frozen=True, slots=True)
class PlayVerb:
    url: str


@dataclass(frozen=True, slots=True)
class PauseVerb:
    length_s: float = 1.0


@dataclass(frozen=True, slots=True)
class RedirectVerb:
    url: str
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class OtherVerb:
    """A verb that needs more than a simulated caller: `Say`, `Dial`, `Gather`, `Hangup` ..."""

    name: str
    text: str = ""


Verb = StreamVerb | RecordVerb | PlayVerb | PauseVerb | RedirectVerb | OtherVerb


def parse(document: bytes, base_url: str) -> list[Verb]:
    """The verbs in order; relative URLs count from `base_url`. Raises ProtocolError with Twilio's error code."""
    if len(document) > MAX_BYTES:
        raise ProtocolError(f"11750: the TwiML is longer than {MAX_BYTES // 1024} kB")
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise ProtocolError("12100: TwiML has no DOCTYPE and no entities of its own")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise ProtocolError(f"12100: the webhook's answer is not XML: {error}") from None
    if root.tag != "Response":
        raise ProtocolError(f"12100: TwiML is a <Response>, got <{root.tag}>")
    return [_verb(element, base_url) for element in root]


def _verb(element: ElementTree.Element, base_url: str) -> Verb:
    text = (element.text or "").strip()
    match element.tag:
        case "Connect":
            return _connect(element, base_url)
        case "Record":
            return _record(element, base_url)
        case "Play":
            return PlayVerb(urljoin(base_url, text)) if text else OtherVerb("Play")
        case "Pause":
            return PauseVerb(_seconds(element, "length", 1.0))
        case "Redirect":
            return RedirectVerb(urljoin(base_url, text), element.get("method", "POST").upper())
        case "Start":
            raise ProtocolError(
                "<Start><Stream> is one-way: the agent could not answer; use <Connect><Stream>"
            )
        case name:
            return OtherVerb(name, text)


def _connect(element: ElementTree.Element, base_url: str) -> Verb:
    stream = element.find("Stream")
    if stream is None:
        inner = element[0].tag if len(element) else "nothing"
        raise ProtocolError(f"<Connect> holds {inner}; the simulated caller connects to a <Stream>")
    url = stream.get("url", "")
    if not url:
        raise ProtocolError("31923: <Stream> has no url")
    # Relative to a webhook over http: the same host, over ws.
    absolute = urljoin(base_url, url)
    scheme, _, rest = absolute.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    if scheme not in ("ws", "wss"):
        raise ProtocolError(f"31922: a stream's URL is wss://..., got {url!r}")
    callback = stream.get("statusCallback", "")
    return StreamVerb(
        f"{scheme}://{rest}",
        {p.get("name", ""): p.get("value", "") for p in stream.findall("Parameter")},
        urljoin(base_url, callback) if callback else "",
    )


def _record(element: ElementTree.Element, base_url: str) -> RecordVerb:
    callback = element.get("recordingStatusCallback", "")
    return RecordVerb(
        action=urljoin(base_url, element.get("action", "")),
        method=element.get("method", "POST").upper(),
        timeout_s=_seconds(element, "timeout", 5.0),
        finish_keys=element.get("finishOnKey", _ANY_KEY),
        max_length_s=_seconds(element, "maxLength", 3600.0),
        trim=element.get("trim", "trim-silence") == "trim-silence",
        status_callback=urljoin(base_url, callback) if callback else "",
    )


def _seconds(element: ElementTree.Element, name: str, default: float) -> float:
    try:
        value = float(element.get(name, default))
    except ValueError:
        raise ProtocolError(f"12100: <{element.tag} {name}> is a number of seconds") from None
    if not 0 <= value <= 86_400:
        raise ProtocolError(f"12100: <{element.tag} {name}> is 0 to 86400 seconds, got {value:g}")
    return value

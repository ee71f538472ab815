"""Is it the phone company that calls? Twilio's signature on webhooks and on a stream's upgrade.

Computed by the `twilio` package over the public URL: the configured one, or, without it, what a trusted proxy says.
With no auth token nothing can be checked: only programs on this machine, the simulator, are served, and never browsers;
where the server has keys, they need one.
Source: https://www.twilio.com/docs/usage/security
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, HTTPConnection, Request

from antiphon.config.sections import PhoneSettings, ServerSettings
from antiphon.errors import ConfigError
from antiphon.server.http_errors import RequestRefused
from antiphon.server.security import Network, gate_of, network, origin_allowed
from antiphon.server.traffic import admit

if TYPE_CHECKING:
    from twilio.request_validator import RequestValidator

log = logging.getLogger(__name__)

SIGNATURE = "x-twilio-signature"
_SETTINGS = "x-twilio-webhooks-signature-settings"
_BROWSER = ("origin", "referer", "sec-fetch-", "sec-ch-")
"""How the headers begin that browsers send with a form or a socket of any page. No telephone company sends them."""
_MAX_FORM_BYTES = 64 << 10
_FORM_S = 10.0
"""A form comes in one piece; who takes longer holds a connection, and nothing else."""
_MAX_FIELDS = 200
_DEFAULT_PORT = {"wss": 443, "https": 443, "ws": 80, "http": 80}


def hide_stream_keys(record: logging.LogRecord) -> bool:
    """A filter of log records: the paths of streams end in secrets, and a web server writes paths down."""
    if isinstance(record.args, tuple):
        record.args = tuple(_without_key(argument) for argument in record.args)
    return True


def _without_key(argument: object) -> object:
    if isinstance(argument, str) and argument.startswith("/media-stream/"):
        return "/media-stream/..."
    return argument


class Form(dict[str, list[str]]):
    """A webhook's parameters, exactly as they came: a signature covers empty values and white space too."""

    def getlist(self, name: str) -> list[str]:
        """As the `twilio` package asks."""
        return self[name]

    def first(self, name: str) -> str:
        return self.get(name, [""])[0]


class Guard:
    def __init__(self, settings: PhoneSettings, server: ServerSettings | None = None) -> None:
        """Raises ConfigError for a proxy that is no address, and when the `twilio` package is missing."""
        self._settings = settings
        server = server or ServerSettings()
        self._origins = server.cors_origins
        self._proxies: tuple[Network, ...] = (
            *(network("phone.trusted_proxies", proxy) for proxy in settings.trusted_proxies),
            *(network("server.trusted_proxies", proxy) for proxy in server.trusted_proxies),
        )
        self._validator = _validator(settings.auth_token.get_secret_value())
        if self._validator is None and (settings.public_url or settings.account_sid):
            log.warning(
                "THE TELEPHONE IS NOT PROTECTED: phone.auth_token (TWILIO_AUTH_TOKEN) is not set, so signatures cannot "
                "be checked and only the simulator on this machine is served"
            )

    @property
    def checks(self) -> bool:
        """An auth token is set."""
        return self._validator is not None

    def has_key(self, key: str) -> bool:
        """The path's last part is the configured stream key."""
        known = self._settings.stream_key.get_secret_value()
        return bool(known) and secrets.compare_digest(known.encode(), key.encode())

    # -- addresses ------------------------------------------------------------------------------

    def base_url(self, connection: HTTPConnection) -> str:
        """Where the outside world reaches this server, `https://host`, without a slash at the end."""
        if self._settings.public_url:
            return self._settings.public_url
        scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
        host = connection.headers.get("host", "localhost")
        if self._behind_proxy(connection):
            host = _last(connection.headers.get("x-forwarded-host", "")) or host
            scheme = _last(connection.headers.get("x-forwarded-proto", "")).lower() or scheme
            scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
        return f"{scheme}://{host}"

    def stream_base_url(self, connection: HTTPConnection) -> str:
        """The same for websockets."""
        scheme, _, rest = self.base_url(connection).partition("://")
        return f"{'ws' if scheme == 'http' else 'wss'}://{rest}"

    def _behind_proxy(self, connection: HTTPConnection) -> bool:
        try:
            peer = ipaddress.ip_address(connection.client.host if connection.client else "")
        except ValueError:
            return False
        return any(peer in network for network in self._proxies)

    def _urls(self, connection: HTTPConnection) -> list[str]:
        """The public URL that was asked for, in the spellings that Twilio may have signed."""
        scope = connection.scope
        path = (scope.get("raw_path") or scope["path"].encode()).split(b"?")[0].decode("latin-1")
        query = scope.get("query_string", b"").decode("latin-1")
        target = f"{path}?{query}" if query else path
        if scope["type"] != "websocket":
            return [self.base_url(connection) + target]
        base = self.stream_base_url(connection)
        parts = urlsplit(base)
        with_port = base if parts.port else f"{base}:{_DEFAULT_PORT[parts.scheme]}"
        return [base + target, with_port + target, self.base_url(connection) + target]

    # -- checks ---------------------------------------------------------------------------------

    async def webhook(self, request: Request) -> Form:
        """The parameters of a webhook that is genuine. Raises Refused."""
        form = await _read_form(request)
        await self._check(request, form)
        admit(request)
        return form

    async def upgrade(self, connection: HTTPConnection, key: str = "") -> None:
        """A stream that may be opened. `key`: from the end of its path. Raises Refused."""
        if not origin_allowed(connection.headers, self._origins):
            raise RequestRefused(403, "this origin is not allowed; add it to server.cors_origins")
        if not self.has_key(key):
            await self._check(connection, Form())

    async def _check(self, connection: HTTPConnection, form: Form) -> None:
        if self._validator is None:
            await _check_unsigned(connection)
            return
        signature = connection.headers.get(SIGNATURE, "")
        algorithm = _algorithm(connection.headers.get(_SETTINGS, ""))
        try:
            urls = self._urls(connection)
        except ValueError:  # what a proxy forwards of a Host that is none
            raise RequestRefused(400, "the host that was asked for is none", retry=False) from None
        try:
            genuine = any(self._validator.validate(u, form, signature, algorithm) for u in urls)
        except ValueError:  # a Host that is none
            genuine = False
        if not genuine:
            log.warning(
                "phone: refused, the signature %s; it was computed over %s and %d parameters. Set phone.public_url to "
                "the address that is entered at Twilio, and phone.auth_token to the token of the same account",
                "does not match" if signature else "is missing",
                " or ".join(urls)
                if not connection.path_params
                else urls[0].rpartition("/")[0] + "/...",
                len(form),
            )
            raise RequestRefused(
                403, "the signature does not match; the server's log says more", retry=False
            )


async def _check_unsigned(connection: HTTPConnection) -> None:
    """Without a token: a program on this machine, or, where there are keys, one that has a key. Raises Refused."""
    gate = gate_of(connection)
    if any(name.startswith(_BROWSER) for name in connection.headers):
        log.warning("phone: refused %s from a browser", connection.scope["path"])
        raise RequestRefused(403, "this is for the phone company, not for browsers", retry=False)
    await gate.keys.refresh()
    if gate.keys.required:
        await gate.admit(connection, secrets_too=False)
    elif not gate.is_local(connection):
        log.warning(
            "phone: refused %s from another machine: no phone.auth_token is set",
            connection.scope["path"],
        )
        raise RequestRefused(403, "without an auth token only this machine is served", retry=False)


async def _read_form(request: Request) -> Form:
    body = bytearray()
    try:
        async with asyncio.timeout(_FORM_S):
            async for piece in request.stream():
                body += piece
                if len(body) > _MAX_FORM_BYTES:
                    raise RequestRefused(
                        413, f"a webhook has at most {_MAX_FORM_BYTES} bytes", retry=False
                    )
    except (TimeoutError, ClientDisconnect):
        raise RequestRefused(408, "the form did not come to its end", retry=False) from None
    try:
        pairs = parse_qsl(bytes(body).decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise RequestRefused(400, f"the body is no form: {error}", retry=False) from None
    form = Form()
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def _algorithm(settings: str) -> str | None:
    """Of `key=...,algorithm=HMAC_SHA256`; None: the old one."""
    for part in settings.split(","):
        name, _, value = part.strip().partition("=")
        if name == "algorithm":
            return value or None
    return None


def _last(header: str) -> str:
    """A list grows at its end: that entry is our own proxy's."""
    return header.rsplit(",", 1)[-1].strip()


def _validator(auth_token: str) -> RequestValidator | None:
    if not auth_token:
        return None
    try:
        from twilio.request_validator import RequestValidator
    except ImportError:
        raise ConfigError(
            "phone.auth_token needs the package `twilio` to check signatures: pip install 'antiphon[phone]'"
        ) from None
    return RequestValidator(auth_token)

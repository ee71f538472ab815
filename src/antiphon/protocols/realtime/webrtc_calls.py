"""`POST /v1/realtime/calls`: an SDP offer for an SDP answer, and a call over WebRTC; `.../hangup` ends it.

Needs the package `aiortc` (extra `rtc`), which is imported with the first call. docs/howto/webrtc.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from antiphon.errors import BusyError, ModelError, ProtocolError
from antiphon.protocols.realtime.connection import Opening, RealtimeConnection
from antiphon.protocols.realtime.frames import session_patch
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import SessionConfig
from antiphon.server.admission import Calls
from antiphon.server.client_secrets import Pinned
from antiphon.server.http_errors import RequestRefused
from antiphon.server.security import Principal, authorize_realtime, call_limit_s, session_of

if TYPE_CHECKING:
    from antiphon.protocols.realtime.webrtc_peer import Peer

log = logging.getLogger(__name__)
router = APIRouter(tags=["openai"])

Admitted = Annotated[Principal, Depends(authorize_realtime)]
_MAX_SDP_BYTES = 64 << 10
_MAX_FIELDS = 20
_ANSWER_S = 10.0
"""For this machine's addresses to be known, STUN and TURN servers included."""
_RETRY_S = 5
_END_S = 10.0
_SDP = "application/sdp"


@router.post("/v1/realtime/calls", status_code=201, response_model=None)
async def create(request: Request, principal: Admitted) -> Response:
    """The offer as `application/sdp`, or as `sdp` in a form, with the `session` beside it."""
    offer, given = await _asked(request)
    calls: Calls = request.app.state.calls
    rtc: RtcCalls = request.app.state.rtc
    opening = _opening(request, principal, given)
    try:
        calls.check_room()
        rtc.check_room()
    except (BusyError, ModelError) as error:
        raise RequestRefused(503, str(error), "server_busy", retry_after_s=_RETRY_S) from None
    with ExitStack() as held:
        seat = held.enter_context(session_of(request, principal))
        limit_s = min(opening.max_s, call_limit_s(calls.settings.server.max_call_s, seat))
        peer, answer = await _answered(calls, offer)
        opening = replace(opening, max_s=limit_s)
        call_id = rtc.start(peer, calls, opening, principal.name, held.pop_all())
    where = f"{request.url.path}/{call_id}"
    return Response(answer, 201, {"Location": where}, media_type=_SDP)


@router.post("/v1/realtime/calls/{call_id}/hangup", response_model=None)
async def hang_up(call_id: str, request: Request, principal: Admitted) -> Response:
    """End a call of one's own."""
    rtc: RtcCalls = request.app.state.rtc
    if not rtc.hang_up(call_id, principal.name):
        raise RequestRefused(
            404, f"there is no call {call_id[:80]!r}", "call_not_found", retry=False
        )
    return Response(status_code=200)


async def _answered(calls: Calls, offer: str) -> tuple[Peer, str]:
    """Raises Refused."""
    try:
        from antiphon.protocols.realtime.webrtc_peer import Network, Peer
    except ImportError:
        reason = "WebRTC needs the package aiortc: pip install 'antiphon[rtc]'"
        raise RequestRefused(501, reason, "unsupported_operation", retry=False) from None
    chosen = calls.settings.realtime
    network = Network(
        chosen.rtc_ice_servers, chosen.rtc_turn_user, chosen.rtc_turn_password.get_secret_value()
    )
    answered = False
    try:
        peer = Peer(network, calls.settings.server.max_message_bytes)
    except ValueError:
        reason = "realtime.rtc_ice_servers holds what is neither a stun: nor a turn: address"
        raise RequestRefused(500, reason, "server_error", retry=False) from None
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await peer.answer(offer)
        answered = True
        return peer, answer
    except ProtocolError as error:
        raise RequestRefused(400, str(error), "invalid_offer", param="sdp", retry=False) from None
    except TimeoutError:
        reason = f"this machine's addresses were not known within {_ANSWER_S:g} s"
        raise RequestRefused(504, reason, "timeout", retry_after_s=_RETRY_S) from None
    finally:
        if not answered:
            await peer.shut()


async def _asked(request: Request) -> tuple[str, Any]:
    """-> the offer, and the session object beside it. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=2, max_fields=_MAX_FIELDS) as form:
            offer, session = await _field(form.get("sdp")), await _field(form.get("session"))
    elif kind == _SDP:
        offer, session = await _body(request), ""
    else:
        reason = f"send the offer as {_SDP}, or as `sdp` in multipart/form-data"
        raise RequestRefused(415, reason, "invalid_content_type", retry=False)
    if not offer.strip():
        raise RequestRefused(
            400, "there is no SDP offer", "missing_required_parameter", param="sdp"
        )
    try:
        return offer, msgspec.json.decode(session) if session else None
    except (msgspec.DecodeError, RecursionError):
        raise RequestRefused(400, "session is not JSON", "invalid_json", param="session") from None


async def _field(value: Any) -> str:
    if isinstance(value, UploadFile):
        return _text(await value.read(_MAX_SDP_BYTES + 1), "a part of the form")
    return value if isinstance(value, str) else ""


async def _body(request: Request) -> str:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_SDP_BYTES:
            break
    return _text(bytes(body), "the offer")


def _text(data: bytes, what: str) -> str:
    if len(data) > _MAX_SDP_BYTES:
        raise RequestRefused(413, f"{what} is larger than {_MAX_SDP_BYTES >> 10} KiB", retry=False)
    return data.decode(errors="replace")


def _opening(request: Request, principal: Principal, given: Any) -> Opening:
    """Raises Refused for a session object that is none."""
    settings = request.app.state.settings
    pinned = [principal.pinned] if principal.pinned is not None else []
    if given is not None:
        _check(given, settings.agent.voice)
        pinned.append(Pinned(given))
    named = str(given.get("model") or "") if given is not None else ""
    wants = [p.session.get("type") for p in pinned]
    return Opening(
        model=named or request.query_params.get("model", ""),
        kind="transcription" if "transcription" in wants else "realtime",
        dialect="ga",
        max_s=settings.realtime.max_session_s,
        pinned=tuple(pinned),
    )


def _check(given: Any, voice: str) -> None:
    try:
        SessionConfig("sess_check", voice=voice or "alloy").update(session_patch(given, "ga"))
    except RealtimeError as error:
        raise RequestRefused(400, str(error), error.code, param=error.param, retry=False) from None


@dataclass(frozen=True, slots=True)
class _Entry:
    owner: str
    peer: Peer
    task: asyncio.Task[None]


class RtcCalls:
    """The WebRTC calls of this process, by their ids: one task each, from the answered offer to the end.

    Every call ends: with its session, when the peer vanishes (ICE consent, within 30 s), when it is hung up, or when it
    does not connect in time.
    """

    def __init__(self, max_calls: int, setup_s: float) -> None:
        """`setup_s`: from the answer until the peer must be connected."""
        self._max_calls = max_calls
        self._setup_s = setup_s
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def check_room(self) -> None:
        """Raises BusyError: peers that do not connect hold sockets, too."""
        if len(self._entries) >= self._max_calls:
            raise BusyError(f"all {self._max_calls} lines are busy; try again soon")

    def start(self, peer: Peer, calls: Calls, opening: Opening, owner: str, held: ExitStack) -> str:
        """-> the call's id. `held` is closed when the call is over."""
        call_id = f"rtc_{secrets.token_hex(12)}"
        task = asyncio.create_task(self._run(call_id, peer, calls, opening), name=call_id)
        self._entries[call_id] = _Entry(owner, peer, task)

        def ended(task: asyncio.Task[None]) -> None:
            del self._entries[call_id]
            held.close()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("webrtc: %s: freeing it: %r", call_id, error)

        task.add_done_callback(ended)
        return call_id

    def hang_up(self, call_id: str, owner: str) -> bool:
        """-> whether there is such a call of this owner's."""
        entry = self._entries.get(call_id)
        if entry is None or entry.owner != owner:
            return False
        entry.peer.leave()
        return True

    async def close(self) -> None:
        """End all; their sessions have been told before."""
        tasks = [entry.task for entry in self._entries.values()]
        for entry in tuple(self._entries.values()):
            entry.peer.leave()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, call_id: str, peer: Peer, calls: Calls, opening: Opening) -> None:
        try:
            async with asyncio.timeout(self._setup_s):
                await peer.connected()
        except (TimeoutError, ConnectionError) as error:
            log.info("webrtc: %s: not connected: %s", call_id, error or "too late")
        else:
            await self._serve(call_id, peer, calls, opening)
        finally:
            await peer.shut()

    async def _serve(self, call_id: str, peer: Peer, calls: Calls, opening: Opening) -> None:
        try:
            await RealtimeConnection(peer, calls, opening, line=peer).serve()
        except Exception:
            log.exception("webrtc: %s", call_id)

"""The WebRTC calls of this process, by their ids: one task each, from the answered offer to the end.

Knows no HTTP. Every call ends: with its session, when the peer vanishes (ICE consent, within 30 s), when it is hung
up, or when it does not connect in time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from antiphon.errors import BusyError
from antiphon.server.calls import Calls
from antiphon.server.realtime.connection import Connection, Opening

if TYPE_CHECKING:
    from antiphon.server.realtime.rtc_peer import Peer

log = logging.getLogger(__name__)

_END_S = 10.0


@dataclass(frozen=True, slots=True)
class _Entry:
    owner: str
    peer: Peer
    task: asyncio.Task[None]


class RtcCalls:
    """One per application."""

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
            await Connection(peer, calls, opening, line=peer).serve()
        except Exception:
            log.exception("webrtc: %s", call_id)

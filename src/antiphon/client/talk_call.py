"""A person's call on `/ws/conversation`: the simulated caller with a real ear, and a stopwatch.

Adds to `Talker` what a person at a terminal needs: a microphone that need not be a file, a transfer codec, somebody
who is told of each message, and the times of each turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from antiphon.client.call_table import CallTable, TalkTurn
from antiphon.client.loudspeaker import Loudspeaker
from antiphon.client.microphone import MicTrack, Transfer
from antiphon.client.talker import Talker
from antiphon.errors import ProtocolError
from antiphon.models.ports import STT_RATE_HZ, Pcm16

OUTPUT_RATE_HZ = 24_000
ANSWER_LIMIT_S = 10.0
_SETTLED_S = 1.0
"""After so long without news, with nobody speaking, no answer is on its way."""
_POLL_S = 0.05
_PING_S = 2.0
_LAST_WORDS_S = 2.0
_LOOK_BACK_S = 60.0
"""The end of a question is looked for this long before its answer."""

Microphone = Callable[[], Awaitable[Pcm16]]
"""-> the next samples at 16 kHz, as they are recorded. Raises AudioError when it is gone."""


def _ignore(message: dict[str, Any]) -> None:
    pass


class TalkCall(Talker):
    """`async with TalkCall(url, transfer) as call:` then `say` or, with a microphone, `wait_until_over`."""

    def __init__(
        self,
        url: str,
        transfer: Transfer,
        *,
        microphone: Microphone | None = None,
        playout: Loudspeaker | None = None,
        greeting: bool = False,
        api_key: str = "",
        on_message: Callable[[dict[str, Any]], None] = _ignore,
    ) -> None:
        """`microphone` None: speech comes from `say`, silence in between."""
        super().__init__(
            url,
            STT_RATE_HZ,
            greeting,
            format=transfer.format,
            pack=self._record_and_pack,
            api_key=api_key,
        )
        self.playout = playout or Loudspeaker(OUTPUT_RATE_HZ)
        self.transfer = transfer
        self.track = MicTrack(STT_RATE_HZ)
        self.turns: list[TalkTurn] = []
        self.round_trips_ms: list[float] = []
        self.floor = "open"
        self._microphone = microphone
        self._on_message = on_message
        self._news_s = 0.0
        self._began_s: float | None = None
        self._asked_s = 0.0
        """The end of the last question that was answered."""

    async def __aenter__(self) -> TalkCall:
        """Raises ProtocolError with what to do when there is no call to be had."""
        try:
            await super().__aenter__()
        except InvalidURI:
            raise ProtocolError(
                f"{self.url} is no address of a server; use ws://host:port"
            ) from None
        except InvalidStatus as error:
            if error.response.status_code == 401:
                raise ProtocolError(
                    f"{self.url} wants a key: set ANTIPHON_API_KEY to one of its keys"
                ) from None
            raise ProtocolError(
                f"{self.url} answers HTTP {error.response.status_code}, not a call; check the address"
            ) from None
        except InvalidHandshake as error:
            raise ProtocolError(f"{self.url} is no conversation server: {error}") from None
        except TimeoutError:
            raise ProtocolError(
                f"no answer from {self.url} within 10 s; is it the right address?"
            ) from None
        except (ProtocolError, ConnectionClosed) as error:
            raise ProtocolError(f"the server refuses the call: {self._last_word(error)}") from None
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            raise ProtocolError(
                f"cannot reach {self.url} ({reason}); is the server running?"
            ) from None
        self._began_s = self.now_s
        self._tasks.append(asyncio.create_task(self._ping()))
        return self

    def _last_word(self, error: Exception) -> str:
        told = [message.get("message") for message in self.messages("error")]
        return str(told[-1] if told else error)

    async def wait_until_over(self) -> None:
        """Until the server ends the call, or the line or the microphone is lost. Raises AudioError, ProtocolError."""
        listen, speak = self._tasks[:2]
        await asyncio.wait({listen, speak}, return_when=asyncio.FIRST_COMPLETED)
        self._raise_trouble()

    async def wait_until_heard(self, limit_s: float = ANSWER_LIMIT_S) -> None:
        """Until the last answer has been heard, or `limit_s` pass without news and without sound.

        Raises ProtocolError when the line is cut.
        """
        began_s = self.now_s
        while not self._tasks[0].done():
            quiet_s = self.now_s - max(self.playout.end_s, self._news_s, began_s)
            if quiet_s > limit_s or (quiet_s > _SETTLED_S and self.floor == "open"):
                return
            await asyncio.sleep(_POLL_S)
        self._raise_trouble()

    def _raise_trouble(self) -> None:
        """What ended the call, unless the server said goodbye."""
        listen, speak = self._tasks[:2]
        trouble = speak.exception() if speak.done() and not speak.cancelled() else None
        if trouble is not None and not isinstance(trouble, ConnectionClosed):
            raise trouble
        if self.ended:
            return
        if listen.done() and (broken := listen.exception()) is not None:
            raise ProtocolError(f"the server sent what is no message: {broken!r}")
        told = [message.get("message") for message in self.messages("error")]
        raise ProtocolError(
            "the connection was lost" + (f"; last word: {told[-1]}" if told else "")
        )

    @property
    def ended(self) -> str:
        """Why the server has ended the call; empty while it has not."""
        told = self.messages("ended")
        return (told[0].get("reason") or "the server ended the call") if told else ""

    async def hang_up(self) -> None:
        """Put the receiver down: nothing more is heard, and the server tells of the turn that was on."""
        self.playout.clear(self.now_s)
        self._tasks[1].cancel()
        assert self._socket is not None
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._socket.send('{"type":"stop"}')
                await asyncio.wait([self._tasks[0]])

    def session(self, ended: str = "") -> CallTable:
        """The call so far. `ended`: why it is over, where that is not the caller's doing."""
        return CallTable(
            0.0 if self._began_s is None else self.now_s - self._began_s,
            tuple(self.turns),
            tuple(self.round_trips_ms),
            self.transfer.codec,
            self.transfer.recorded_bytes,
            self.transfer.sent_bytes,
            ended,
        )

    def heard(self) -> Pcm16:
        """The agent as heard, on the call's time line, from the first sample that the caller sent.

        Shape [samples] at `OUTPUT_RATE_HZ`; what was received and not yet played is played out.
        """
        start_s = self.track.start_s
        if start_s is None:
            return self.playout.render(0.0, 0.0)
        return self.playout.render(start_s, max(self.now_s, self.playout.end_s))

    # -- what the base class calls ----------------------------------------------------------------

    def _record_and_pack(self, pcm: Pcm16) -> bytes:
        self.track.add(pcm, self.now_s)
        return self.transfer.pack(pcm)

    async def _speak(self) -> None:
        if self._microphone is None:
            await super()._speak()
            return
        while True:
            await self._send(await self._microphone())

    def _take(self, message: dict[str, Any], now_s: float) -> None:
        super()._take(message, now_s)
        self._news_s = now_s
        if message["type"] == "floor":
            self.floor = message["state"]
        elif message["type"] == "turn":
            self._note_turn(message["record"])
        self._on_message(message)

    def _note_turn(self, record: dict[str, Any]) -> None:
        withdrawn = record["status"] == "cancelled" and not record["first_sent_ms"]
        if record["kind"] != "answer" or withdrawn:
            return
        pieces = [piece for piece in self.playout.pieces if piece.reply == record["reply"]]
        first_s = Loudspeaker(self.playout.rate_hz, pieces).first_audible_s(0.0)
        end_to_end_ms = None
        if first_s is not None:
            from_s = max(self._asked_s, first_s - _LOOK_BACK_S)
            asked_s = self.track.speech_end_s(from_s, first_s)
            if asked_s is not None:
                self._asked_s = asked_s
                end_to_end_ms = (first_s - asked_s) * 1000
        self.turns.append(TalkTurn(record, first_s is not None, end_to_end_ms))

    async def _ping(self) -> None:
        assert self._socket is not None
        while True:
            began_s = self.now_s
            await (await self._socket.ping())
            self.round_trips_ms.append((self.now_s - began_s) * 1000)
            await asyncio.sleep(_PING_S)

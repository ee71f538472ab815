"""A call that is over is freed at once, whatever door it came through: by reference counting, without the collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.protocols.audiosocket.test_server import Asterisk
from tests.protocols.browser.test_audio_in import container
from tests.protocols.realtime import rtc
from tests.protocols.realtime import support as realtime
from tests.protocols.realtime.test_unmute import SMALLTALK, unmute
from tests.protocols.twilio import streams
from tests.server.support import QUESTION, START, Served, client, serving
from tests.support import run, say, until

from antiphon.protocols.audiosocket import codec as audiosocket

WATCHED = (
    *(
        f"antiphon.{part}."
        for part in ("audio", "core", "observe.hub", "server", "session", "wire")
    ),
    "starlette.",
    "uvicorn.protocols.websockets",
)
KEPT = {
    "antiphon.telephony.call_log.PhoneTurn",  # the latest turns, for `/calls/compare`
    "antiphon.protocols.audiosocket.server._Line",  # an error of asyncio's streams refers to the empty shell
    "antiphon.protocols.audiosocket.codec.AudioSocketDecoder",
    "antiphon.audio.encoding._Sink",  # PyAV's containers and their file refer to each other; it is empty
}


def alive() -> Counter[str]:
    """How many objects there are of every class of ours, and of those that hold a connection."""
    names = (f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
    return Counter(name for name in names if name.startswith(WATCHED) and name not in KEPT)


async def realtime_call(served: Served) -> None:
    async with realtime.talking(served) as c:
        await c.wait("session.created")
        await c.update(tools=[realtime.WEATHER])
        await c.speak(realtime.spoken(440, silence_ms=1200))
        await c.wait("response.done")
        await c.text("hello there")
        await c.send("conversation.item.delete", item_id="none")
        await c.wait("error")
        await c.respond(conversation="none")


async def realtime_cut_short(served: Served) -> None:
    """The client leaves in the middle of everything."""
    async with realtime.talking(served, dialect="beta") as c:
        await c.wait("session.created")
        await c.speak(realtime.spoken(550, silence_ms=1200))
        await c.wait("response.created")
        c.socket.transport.abort()


async def realtime_held_audio(served: Served) -> None:
    """Audio that was never committed."""
    async with realtime.talking(served) as c:
        await c.update(**realtime.MANUAL)
        await c.speak(realtime.spoken(440, 5_000))


async def unmute_call(served: Served) -> None:
    async with unmute(served) as c:
        await c.send("session.update", session=SMALLTALK)
        await c.wait("session.updated")
        await c.say(realtime.spoken(440, silence_ms=1200))
        await c.wait("response.created")


async def conversation_call(served: Served) -> None:
    async with client(served, start=START) as c:
        await c.speak(QUESTION)
        await c.wait("turn_complete")
        await c.send(type="nonsense")
        await c.wait("error")


async def conversation_in_a_container(served: Served) -> None:
    async with client(served) as c:
        await c.send_pieces(container("webm"))
        await c.wait("turn_complete")


async def telephone_call(served: Served) -> None:
    async with streams.phone_call(served) as stream:
        await stream.speak(say(440, silence_ms=1200, rate_hz=8_000))
        await stream.wait("mark")


async def asterisk_call(served: Served) -> None:
    port = await served.app.state.audiosocket.listen(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asterisk = Asterisk(reader, writer)
    listening = asyncio.create_task(asterisk.listen())
    writer.write(audiosocket.encode_id(uuid.UUID(int=7)))
    asterisk.speak(440)
    await until(lambda: asterisk.loud() >= 12)
    writer.close()
    await listening


async def webrtc_call(served: Served) -> None:
    async with rtc.calling(served) as c:
        c.microphone.say(say(440, rate_hz=rtc.RATE_HZ))
        await c.wait("output_audio_buffer.started")


CALLS = {
    found.__name__: found
    for found in (
        realtime_call,
        realtime_cut_short,
        realtime_held_audio,
        unmute_call,
        conversation_call,
        conversation_in_a_container,
        telephone_call,
        asterisk_call,
        webrtc_call,
    )
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_nothing_behind(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtc.loopback_only(monkeypatch)
    assert run(left_after(tmp_path, CALLS[name])) == Counter()


async def left_after(folder: Path, call: Callable[[Served], Awaitable[None]]) -> Counter[str]:
    """What two calls leave that was not there after one."""
    async with serving(folder) as served:
        await call(served)
        await until(lambda: not served.calls, "the first call does not end")
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(2):
                await call(served)
                await until(lambda: not served.calls, "a call does not end")
            with contextlib.suppress(AssertionError):
                await until(lambda: not alive() - before)
            return alive() - before
        finally:
            gc.enable()

"""Streams that misbehave, and models that fail in mid-call: the call lives, or ends, and everything is freed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocols.twilio.streams import (
    CONNECTED,
    FORMAT,
    dtmf_frame,
    history_of,
    media_frame,
    open_stream,
    phone_call,
    session_of,
    start_frame,
)
from tests.server.support import serving
from tests.support import OPTIONS, nothing_left, run, say, until

from antiphon.audio import g711

QUESTION = say(440, 640, silence_ms=1200, rate_hz=8_000)
SILENCE = bytes([0xFF]) * 160

SENSELESS: list[tuple[Any, str]] = [
    ("hello", "no Media Streams message"),
    ("[1]", "no Media Streams message"),
    ({"type": "session.update"}, "without `event`"),
    (b"\x00\x01", "binary frame"),
    ({"event": "media"}, "no `payload`"),
    ({"event": "media", "media": {"payload": 7}}, "no `payload`"),
    ({"event": "media", "media": {"payload": "not base64!"}}, "not base64"),
    ({"event": "media", "media": {"payload": "////\n////"}}, "not base64"),
    ({"event": "media", "media": "no"}, "no Media Streams message"),
    ({"event": "media", "media": {"payload": "/" * 400_000}}, "300000 bytes in one frame"),
    ({"event": "dtmf", "dtmf": {"digit": "x"}}, "no key of a telephone"),
    ({"event": "dtmf"}, "no key of a telephone"),
    ({"event": "mark", "mark": {}}, "no `name`"),
    (start_frame(), "a second `start`"),
]
HARMLESS: list[Any] = [
    CONNECTED,
    {"event": "media", "media": {"payload": ""}},
    {"event": "media", "media": {"payload": "/w=="}},
    {"event": "media", "media": {"payload": "/" * 106_668, "chunk": {}, "timestamp": None}},
    {"event": "media", "media": {"track": "outbound", "payload": "AAAA"}},
    {"event": "mark", "mark": {"name": "somebody else's"}},
    {"event": "mark", "mark": {"name": "1:r1:99999999999999999999"}},
    {"event": "mark", "mark": {"name": 17}},
    {"event": "transcription", "text": "new in 2027"},
    {"event": 7},
]


@pytest.mark.parametrize("case", range(len(SENSELESS)))
def test_senseless_frames_are_noted_and_the_call_lives(
    case: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame, advice = SENSELESS[case]

    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served) as line:
            await line.send(frame)
            await line.speak(QUESTION)
            await until(lambda: ("assistant", "It is noon.") in history_of(session_of(served)))

    run(main())
    assert advice in caplog.text


def test_harmless_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served) as line:
            for frame in HARMLESS:
                await line.send(frame)
            await until(lambda: session_of(served).heard_ms >= 9_900, "ten seconds in one frame")
            await line.speak(QUESTION)
            await until(lambda: ("assistant", "It is noon.") in history_of(session_of(served)))

    run(main())
    assert not [r for r in caplog.records if r.levelname == "WARNING"], caplog.text


def test_too_many_senseless_frames(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with phone_call(served) as line:
                for _ in range(50):
                    await line.send("hello")
                assert await line.wait_closed() == (1008, "too many senseless frames")
            async with open_stream(served) as line:
                for _ in range(50):
                    await line.send("hello")
                assert (await line.wait_closed())[0] == 1008
            await until(lambda: len(served.calls) == 0)

    run(main())


def test_media_before_start_is_not_heard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, open_stream(served) as line:
            await line.send(media_frame(SILENCE, 1, 0))
            await line.send(dtmf_frame("1"))
            await line.send(CONNECTED)
            await line.send(start_frame())
            await until(lambda: len(served.calls) == 1)
            await line.speak(QUESTION)
            await line.wait("media")

    run(main())
    assert "before `start`" in caplog.text


WRONG_STARTS = [
    ({"event": "start"}, "no `start` object"),
    ({"event": "start", "start": {"callSid": "CA1"}}, "streamSid with callSid (twilio)"),
    (
        {**start_frame(), "start": {**start_frame()["start"], "mediaFormat": {"encoding": "opus"}}},
        "mono mu-law",
    ),
    (
        {
            **start_frame(),
            "start": {**start_frame()["start"], "mediaFormat": {**FORMAT, "channels": 2}},
        },
        "2 channel(s)",
    ),
]


@pytest.mark.parametrize(("start", "advice"), WRONG_STARTS)
def test_a_start_that_cannot_be_served(
    start: dict[str, Any], advice: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, open_stream(served) as line:
            await line.send(start)
            assert (await line.wait_closed())[0] == 1008

    run(main())
    assert advice in caplog.text


def test_frames_out_of_order_twice_and_missing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served) as line:
            codes = g711.encode_ulaw(QUESTION)
            frames = [
                media_frame(codes[at : at + 160], n, n * 20)
                for n, at in enumerate(range(0, len(codes), 160), 1)
            ]
            swapped = [frames[n ^ 1] for n in range(len(frames) // 2 * 2)]
            for n, frame in enumerate(swapped):
                if n % 25 == 24:
                    continue
                await line.send(frame)
                if n % 10 == 0:
                    await line.send(frame)
            await until(lambda: ("user", "what time is it") in history_of(session_of(served)))
            # 92 frames of 20 ms; what was left out came back as silence.
            await until(lambda: session_of(served).heard_ms >= 92 * 20 - 100)
            assert session_of(served).heard_ms <= 92 * 20 + 100

    run(main())


def test_time_without_audio_is_silence(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served) as line:
            await line.send(media_frame(SILENCE, 1, 0))
            await line.send(media_frame(SILENCE, 2, 3_000))
            await until(lambda: session_of(served).heard_ms >= 2_960)
            assert session_of(served).heard_ms <= 3_040

    run(main())


@pytest.mark.parametrize("pcm_as_ulaw", [True, False])
def test_pcm_that_claims_to_be_mulaw(
    pcm_as_ulaw: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        noise = np.random.default_rng(1).normal(0, 40, 32_000)
        pcm = (say(440, 4_000, rate_hz=8_000) + noise).astype(np.int16)
        codes = pcm.astype("<i2").tobytes() if pcm_as_ulaw else g711.encode_ulaw(pcm)
        async with serving(tmp_path) as served, phone_call(served) as line:
            for n, at in enumerate(range(0, len(codes), 160), 1):
                await line.send(media_frame(codes[at : at + 160], n, n * 20))
            await until(lambda: session_of(served).heard_ms >= 3_900)

    run(main())
    assert ("noise as mulaw; it looks like pcm_s16le" in caplog.text) == pcm_as_ulaw


@pytest.mark.parametrize("kind", ["llm", "tts", "stt"])
def test_a_model_that_dies_in_mid_call(kind: str, tmp_path: Path) -> None:
    """An apology is heard, and the next question is answered."""
    request = 2 if kind == "tts" else 1  # the greeting is its first
    options = {
        f"models__options__{kind}__scripted": {**OPTIONS[kind], "fail_on": [request]},
        # Without guesses, so that it is known which request fails.
        "conversation__preemptive_generation_after_ms": 0,
        "conversation__transcribe_ahead": False,
        "conversation__partial_every_ms": 0,
    }

    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path, phone__greeting="Hi.", **options) as served,
            phone_call(served) as line,
        ):
            await until(lambda: ("assistant", "Hi.") in history_of(session_of(served)))
            await line.speak(QUESTION)
            await until(
                lambda: any("Sorry" in text for _, text in history_of(session_of(served))),
                "no apology",
            )
            await line.speak(QUESTION)
            await until(lambda: ("assistant", "It is noon.") in history_of(session_of(served)))

    run(main())


# --- any sequence at all ---------------------------------------------------------------------------

_media = st.builds(
    media_frame,
    st.one_of(
        st.just(SILENCE),
        st.just(g711.encode_ulaw(say(660, 400, rate_hz=8_000))),
        st.binary(max_size=400),
    ),
    st.integers(0, 60),
    st.integers(0, 4_000),
)
_frames = st.one_of(
    _media,
    _media,
    st.sampled_from(
        [CONNECTED, start_frame(), start_frame("wrong"), dtmf_frame("1"), dtmf_frame("#")]
    ),
    st.sampled_from([frame for frame, _ in SENSELESS] + HARMLESS),
    st.builds(
        lambda g, r, ms: {"event": "mark", "mark": {"name": f"{g}:r{r}:{ms}"}},
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(-5, 5_000),
    ),
    st.just({"event": "stop"}),
    st.dictionaries(
        st.sampled_from(["event", "media", "start", "mark", "dtmf", "streamSid"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    ),
)


def test_any_sequence_ends_in_a_valid_state_and_frees_everything(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """One server for all examples: what one of them left behind would show in the next."""
    with asyncio.Runner() as runner:
        context = serving(
            tmp_path_factory.mktemp("any"), phone__greeting="Hi.", phone__keypad_pause_ms=200
        )
        served = runner.run(context.__aenter__())
        before: set[str] = set()

        async def play(frames: list[Any], abort: bool) -> None:
            async with open_stream(served) as line:
                for frame in [start_frame(), *frames]:
                    if line.closed:
                        break
                    text = json.dumps(frame) if isinstance(frame, dict) else frame
                    await line.socket.send(text)
                if abort:
                    line.socket.transport.abort()
            await until(lambda: len(served.calls) == 0, f"a call is left by {frames}")
            names = {t.get_name() for t in asyncio.all_tasks() if "close" in t.get_name()}
            assert not names - before

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(_frames, max_size=25), st.booleans())
        def check(frames: list[Any], abort: bool) -> None:
            from websockets.exceptions import ConnectionClosed

            try:
                runner.run(play(frames, abort))
            except ConnectionClosed:
                runner.run(until(lambda: len(served.calls) == 0))

        try:
            check()
            lanes = (
                served.models.scheduler_stats
            )  # what was withdrawn may still be ending on its thread
            runner.run(until(lambda: all(lane.running == 0 for lane in lanes().values())))
        finally:
            runner.run(context.__aexit__(None, None, None))
    assert "failed at" not in caplog.text
    assert not [r for r in caplog.records if r.levelname == "ERROR"], caplog.text

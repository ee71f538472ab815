"""A telephone's side of the call: listened to at 8 kHz, spoken to in whole frames."""

from __future__ import annotations

from tests.call.support import RecordingDoor, call
from tests.support import loaded, model_set, run, say, until

from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.models.ports import Kind


def test_telephone_audio_is_not_resampled_for_the_vad() -> None:
    """Speech to text gets its 16 kHz all the same: the words are those of the tone."""

    async def main() -> None:
        transport = RecordingDoor(audio=TransportAudio(rate_hz=8_000, listen_hz=8_000))
        async with call(transport=transport) as line:
            assert line.session._audio_input.rate_hz == 8_000
            line.session.feed_audio(say(440, 640, silence_ms=1200, rate_hz=8_000), 8_000)
            ended = await line.ended()
            assert ended.heard == "It is noon."
            captions = [a.text for a in transport.all(act.Transcript) if a.final]
            assert captions == ["what time is it"]
            assert line.models.backend(Kind.STT).finals >= 1

    run(main())


def test_a_rate_that_the_vad_does_not_take_is_not_insisted_on() -> None:
    async def main() -> None:
        transport = RecordingDoor(audio=TransportAudio(listen_hz=11_025))
        async with call(transport=transport) as line:
            assert line.session._audio_input.rate_hz == 16_000

    run(main())


def test_pieces_end_at_whole_frames() -> None:
    async def main() -> None:
        transport = RecordingDoor(
            audio=TransportAudio(rate_hz=8_000, lead_ms=250, chunk_ms=30, align_ms=20)
        )
        async with (
            loaded(model_set(tts={"word_ms": 1_237})) as models,
            call(models, transport=transport, greet=True, greeting="Good morning."),
        ):
            await until(lambda: transport.all(act.ReplyEnded))
        sizes = [len(piece.pcm) for piece in transport.sent]
        assert sum(sizes) == 8 * 2 * 1_237
        # But for the ends of what was made when a piece was due.
        assert sum(size % 160 == 0 for size in sizes) >= len(sizes) - 3

    run(main())

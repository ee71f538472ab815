"""Hold music, through the default models that listen, is not answered: not even when it passes for speech."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from tests.call.support import RecordingDoor, call
from tests.support import run, until

from antiphon.audio import g711
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.models.model_set import FallbackConfig, ModelSet
from antiphon.models.ports import Kind, Pcm16
from antiphon.models.store import WeightStore

pytestmark = pytest.mark.weights

RATE_HZ = 8_000
CHORDS = ((220, 262, 330), (175, 220, 262), (262, 330, 392), (196, 247, 294))
MELODY = (440, 494, 523, 587, 659, 784)
MODELS = {Kind.TURN: "smart-turn", Kind.STT: "moonshine"}

Wave = npt.NDArray[np.float64]


def note(hz: float, seconds: float) -> Wave:
    times_s = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    phase = 2 * np.pi * hz * times_s + hz / 800 * np.sin(2 * np.pi * 5.5 * times_s)
    overtones = [np.sin(phase * n) / n**1.4 for n in range(1, 6) if hz * n < 3_600]
    wave: Wave = np.sum(overtones, axis=0) * np.minimum(times_s / 0.02, 1) * np.exp(-1.2 * times_s)
    return wave


def hold_music(seconds: int) -> Pcm16:
    """Chords, a bass, a melody with vibrato and a beat, as mu-law leaves them."""
    rng = np.random.default_rng(1)
    track = np.zeros(RATE_HZ * seconds)

    def put(wave: Wave, at_s: float) -> None:
        at = int(at_s * RATE_HZ)
        track[at : at + len(wave)] += wave[: len(track) - at]

    for bar in range(seconds):
        chord = CHORDS[bar % 4]
        for hz in (*chord, chord[0] / 2):
            put(note(hz, 1.0) * 0.6, bar)
        for beat in range(4):
            put(note(float(rng.choice(MELODY)), 0.45), bar + beat / 4)
            put(rng.normal(0, 0.4, 480) * np.exp(-np.arange(480) / 80), bar + beat / 4)
    pcm = (track / np.abs(track).max() * 8_000).astype(np.int16)
    return g711.decode_ulaw(g711.encode_ulaw(pcm))


@pytest.mark.parametrize("vad", ["silero", "scripted"])
def test_music_is_not_answered(vad: str) -> None:
    """The scripted one takes all sound for speech, so that speech to text has to hear what it is."""

    async def main() -> None:
        chosen = {**MODELS, Kind.VAD: vad}
        chains = [FallbackConfig(kind, (chosen.get(kind, "scripted"),)) for kind in Kind]
        models = ModelSet(chains, WeightStore())
        await models.load()
        transport = RecordingDoor(audio=TransportAudio(rate_hz=RATE_HZ, listen_hz=RATE_HZ))
        try:
            async with call(models, transport=transport) as line:
                silence = np.zeros(3 * RATE_HZ, np.int16)
                line.session.feed_audio(np.concatenate([hold_music(12), silence]), RATE_HZ)
                session = line.session
                await until(
                    lambda: session.heard_ms >= 14_900 and not session.unscored_ms,
                    "it was not listened to",
                )
                if vad == "scripted":
                    await until(
                        lambda: transport.all(act.SpeechDropped), "it was to pass for speech"
                    )
                assert not transport.all(act.ReplyBegan)
                assert not [item for item in line.session.view.history if item.text]
        finally:
            await models.close()

    run(main())

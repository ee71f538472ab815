"""Small audio files that crash or swell a decoder, at every door: one request or one recording fails, nothing else."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
from fuzz import harmful_audio as harmful
from tests.server.support import QUESTION, START, client, serving
from tests.support import nothing_left, run

from antiphon.audio.encoding import encode_file

HARMFUL = {
    "9 channels of Opus": harmful.ogg_opus(9),
    "255 channels of Opus": harmful.ogg_opus(255, 2),
    "64 channels of WAV": harmful.wav(channels=64),
    "samples of many tracks": harmful.mp4(1_000, 1_000_000),
    "a damaged SWF": harmful.DAMAGED_SWF,
    "a damaged packed SWF": b"CWS\x0a\xff\xff\xff\x7fx\x9c" + bytes(range(256)) * 8,
    "an odd list": harmful.riff_lists()["an odd list"],
}
PATHS = ["/v1/speech-to-speech", "/v1/audio/transcriptions"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", HARMFUL)
def test_an_upload_is_refused_and_the_next_is_heard(name: str, path: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            form = {"model": "whisper-1"}
            for data, status in ((HARMFUL[name], 400), (encode_file(QUESTION, 16_000, "wav"), 200)):
                answer = await served.http.post(path, files={"file": ("a", data)}, data=form)
                assert answer.status_code == status, answer.text
                assert "Traceback" not in answer.text
            if sys.platform == "linux":
                grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
                assert grown_kb < 64 << 10

    run(main())


@pytest.mark.parametrize(
    "name", ["9 channels of Opus", "samples of many tracks", "64 channels of WAV"]
)
def test_a_recording_of_a_call_is_refused_and_the_next_is_heard(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path) as served,
            client(served, start=START) as other,
        ):
            async with client(served) as caller:
                await caller.send_pieces(HARMFUL[name])
                await caller.wait("error")
                await caller.send_pieces(encode_file(QUESTION, 16_000, "webm"))
                await caller.wait("turn_complete")
            await other.speak(QUESTION)
            await other.wait("turn_complete")
            assert not other.of("error")

    run(main())

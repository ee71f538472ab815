"""The XTTS streaming server's API, and what its clients do with it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocols.services_support import service
from tests.support import run, say

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.models.ports import Kind, ModelInfo
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedTts

CLIP = encode_file(say(440, 2_000), 16_000, "wav")
VOICES = {"models__options__tts__scripted": {"word_ms": 100, "voices": ["ann", "ben"]}}


class Learns(ScriptedTts):
    """Learns voices, by name at least."""

    def learn_voice(self, name: str, clip: Path) -> None:
        assert decode_file(clip).duration_s == pytest.approx(2, abs=0.1)
        self.info = ModelInfo("scripted", voices=(*self.info.voices, name))


register_model("tts", "test-learns")(Learns)


def test_speakers_speak(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS, **VOICES) as served:
            speakers = (await served.http.get("/studio_speakers")).json()
            assert list(speakers) == ["ann", "ben"]
            assert len(speakers["ben"]["speaker_embedding"]) == 512
            assert {len(row) for row in speakers["ben"]["gpt_cond_latent"]} == {1_024}
            assert (await served.http.get("/languages")).json() == ["en"]
            ask = {**speakers["ben"], "text": "one two", "language": "zh-cn"}
            answer = await served.http.post(
                "/tts_stream", json={**ask, "add_wav_header": False, "stream_chunk_size": 20}
            )
            assert answer.headers["content-type"] == "audio/wav"
            assert len(answer.content) == pytest.approx(2 * 4_800, abs=20)
            assert len(answer.content) % 2 == 0
            request = served.backend(Kind.TTS).requests[-1]
            assert (request.voice, request.language) == ("ben", "zh")
            with_header = await served.http.post("/tts_stream", json=ask)
            assert with_header.content[:4] == b"RIFF"
            assert with_header.content[44:] == answer.content

    run(check())


def test_a_whole_file_is_a_json_string(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS) as served:
            (speaker,) = (await served.http.get("/studio_speakers")).json().values()
            ask = {**speaker, "text": "one two three", "language": "en"}
            answer = await served.http.post("/tts", json=ask)
            assert decode_file(base64.b64decode(json.loads(answer.content))).duration_s > 0.25
            assert base64.b64decode(answer.content)[:4] == b"RIFF"  # as the demo does it
            empty = await served.http.post("/tts", json={**ask, "text": "..."})
            assert len(base64.b64decode(json.loads(empty.content))) == 44

    run(check())


def test_vectors_of_strangers_and_rounded_ones(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS, agent__voice="ann", **VOICES) as served:
            mine = (await served.http.get("/studio_speakers")).json()["ben"]
            half = np.asarray(mine["speaker_embedding"], np.float16).tolist()
            ways: list[tuple[Any, Any, str]] = [
                (half, mine["gpt_cond_latent"], "ben"),
                ([[number] for number in half], [], "ben"),
                ([0.01] * 512, [[0.0] * 7], "ann"),
                ([], [], "ann"),
            ]
            for number, (embedding, latent, expected) in enumerate(ways):
                ask = {"speaker_embedding": embedding, "gpt_cond_latent": latent}
                answer = await served.http.post(
                    "/tts_stream", json={**ask, "text": f"hello {number}", "language": "en"}
                )
                assert answer.status_code == 200
                assert served.backend(Kind.TTS).requests[-1].voice == expected

    run(check())


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"text": "x"}', b'{"speaker_embedding": 1, "gpt_cond_latent": []}']
)
def test_wrong_bodies(body: bytes, tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS) as served:
            answer = await served.http.post("/tts_stream", content=body)
            assert answer.status_code == 422
            assert answer.json()["error"]["message"]

    run(check())


def test_a_model_that_fails_is_an_error_and_no_empty_file(tmp_path: Path) -> None:
    async def check() -> None:
        broken = {"models__options__tts__scripted": {"fail_always": True}}
        async with service(tmp_path, Kind.TTS, **broken) as served:
            (speaker,) = (await served.http.get("/studio_speakers")).json().values()
            ask = {**speaker, "text": "hello", "language": "en"}
            answer = await served.http.post("/tts_stream", json=ask)
            assert answer.status_code == 503

    run(check())


def test_cloning(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS) as served:
            answer = await served.http.post("/clone_speaker", files={"wav_file": CLIP})
            assert answer.status_code == 501
            assert "xtts" in answer.json()["error"]["message"]
        async with service(tmp_path, Kind.TTS, models__tts="test-learns") as served:
            for wrong in ({"file": CLIP}, {"wav_file": b"nonsense"}):
                assert (await served.http.post("/clone_speaker", files=wrong)).status_code == 400
            voice = (await served.http.post("/clone_speaker", files={"wav_file": CLIP})).json()
            ask = {**voice, "text": "hello", "language": "en"}
            assert (await served.http.post("/tts_stream", json=ask)).status_code == 200
            assert served.backend(Kind.TTS).requests[-1].voice.startswith("clip-")

    run(check())

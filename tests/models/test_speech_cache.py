"""Speech that is said again: kept by voice and text, bounded in memory and on disk, and never in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.support import model_set

from antiphon.models.pool import Work
from antiphon.models.ports import SpeechRequest
from antiphon.models.speech_cache import SpeechCache

SAID = SpeechRequest("One moment, please.", "joe", "en", 1.0)


def second(value: int = 1) -> np.ndarray:
    return np.full(16_000, value, np.int16)


def test_the_same_words_in_the_same_voice_come_back() -> None:
    cache = SpeechCache(1 << 20)
    key = cache.key("piper joe", SAID)
    cache.put(key, [second(1), second(2)], 16_000)
    found = cache.get(cache.key("piper joe", SpeechRequest("One  moment, please. ", "joe", "en")))
    assert found is not None
    assert found.rate_hz == 16_000
    assert found.pcm.tolist() == [1] * 16_000 + [2] * 16_000


@pytest.mark.parametrize(
    ("model", "request_"),
    [
        ("kokoro", SAID),
        ("piper joe", SpeechRequest("One moment, please.", "amy", "en")),
        ("piper joe", SpeechRequest("One moment, please.", "joe", "en", 0.85)),
        ("piper joe", SpeechRequest("One moment please.", "joe", "en")),
    ],
)
def test_anything_else_is_something_else(model: str, request_: SpeechRequest) -> None:
    assert SpeechCache.key(model, request_) != SpeechCache.key("piper joe", SAID)


def test_long_texts_are_not_kept() -> None:
    assert SpeechCache.key("piper", SpeechRequest("word " * 60)) == ""


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = SpeechCache(5 * second().nbytes)
    for name in "abcde":
        cache.put(name, [second()], 16_000)
    assert cache.get("a") is not None
    cache.put("f", [second()], 16_000)
    assert cache.get("b") is None
    assert cache.get("a") is not None


def test_a_folder_outlives_the_process_and_stays_small(tmp_path: Path) -> None:
    folder = tmp_path / "speech"
    size = second().nbytes
    for number in range(6):
        SpeechCache(1 << 20, folder, 3 * size + 100).put(f"k{number}", [second(number)], 16_000)
    found = SpeechCache(1 << 20, folder).get("k5")
    assert found is not None
    assert found.pcm[0] == 5
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * size + 100


def test_a_damaged_file_is_no_speech(tmp_path: Path) -> None:
    cache = SpeechCache(1 << 20, tmp_path)
    (tmp_path / "k").write_bytes(b"\x01\x02\x03")
    assert cache.get("k") is None
    assert not (tmp_path / "k").exists()


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = SpeechCache(1 << 20, blocked)
    cache.put("k", [second()], 16_000)
    assert not cache.has_folder
    assert cache.get("k") is not None


def test_a_set_of_models_says_it_again_without_its_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        models = model_set()
        models.speech_cache = SpeechCache(1 << 20, tmp_path)
        await models.load()
        heard = []
        for _ in range(2):
            chunks = [chunk async for chunk in models.synthesize(SAID, work=Work("c", 0))]
            heard.append(np.concatenate([chunk.pcm for chunk in chunks]))
        assert heard[0].tolist() == heard[1].tolist()
        assert models.speech_cache.hits == 1
        await models.close()

    asyncio.run(scenario())

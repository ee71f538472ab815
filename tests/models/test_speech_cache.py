"""Speech that is said again: kept by voice and text, bounded in memory and on disk, and never in the way."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis
from tests.support import NoWeights, model_set, settings

from antiphon.errors import ConfigError
from antiphon.models.cache_stores import FolderStore, RedisStore
from antiphon.models.model_set import Work
from antiphon.models.ports import SpeechRequest
from antiphon.models.speech_cache import SpeechCache
from antiphon.server import model_loading

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
        SpeechCache(1 << 20, [FolderStore(folder, 3 * size + 100)]).put(
            f"k{number}", [second(number)], 16_000
        )
    found = SpeechCache(1 << 20, [FolderStore(folder)]).get("k5")
    assert found is not None
    assert found.pcm[0] == 5
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * size + 100


def test_a_damaged_file_is_no_speech(tmp_path: Path) -> None:
    cache = SpeechCache(1 << 20, [FolderStore(tmp_path)])
    (tmp_path / "k").write_bytes(b"\x01\x02\x03")
    assert cache.get("k") is None
    assert not (tmp_path / "k").exists()


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = SpeechCache(1 << 20, [FolderStore(blocked)])
    cache.put("k", [second()], 16_000)
    assert not cache.waits
    assert cache.get("k") is not None


def test_a_set_of_models_says_it_again_without_its_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        models = model_set()
        models.speech_cache = SpeechCache(1 << 20, [FolderStore(tmp_path)])
        await models.load()
        heard = []
        for _ in range(2):
            chunks = [chunk async for chunk in models.synthesize(SAID, work=Work("c", 0))]
            heard.append(np.concatenate([chunk.pcm for chunk in chunks]))
        assert heard[0].tolist() == heard[1].tolist()
        assert models.speech_cache.hits == 1
        await models.close()

    asyncio.run(scenario())


# --- shared by several servers --------------------------------------------------------------------


@dataclass
class RedisServer:
    """A real one, on a socket in a folder of its own."""

    url: str
    process: subprocess.Popen[bytes]

    def ask(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    # Debian's redis-tools has the server under the name of one of its tools; what it does goes by its first argument.
    binary = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    assert binary, "install redis-tools (make redis)"
    folder = Path(tempfile.mkdtemp(prefix="antiphon-"))  # a socket's path must be short
    address = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(address), "--save", ""]
    process = subprocess.Popen(
        command, executable=binary, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        assert any(b"eady to accept connections" in line for line in process.stdout)
        yield RedisServer(f"unix://{address}", process)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(folder)


def test_what_one_server_has_said_another_need_not_make(server: RedisServer) -> None:
    first = SpeechCache(1 << 20, [RedisStore(server.url)])
    other = SpeechCache(1 << 20, [RedisStore(server.url)])
    assert other.get("k") is None
    first.put("k", [second(7)], 22_050)
    found = other.get("k")
    assert found is not None
    assert (found.rate_hz, found.pcm.tolist()) == (22_050, [7] * 16_000)
    assert 0 < server.ask().ttl("antiphon:speech:k") <= 30 * 24 * 3600
    assert other.recall("k") is not None  # in its own memory now
    first.close()
    other.close()


def test_what_is_damaged_there_is_dropped(server: RedisServer) -> None:
    server.ask().set("antiphon:speech:k", b"\x01\x02\x03")
    cache = SpeechCache(1 << 20, [RedisStore(server.url)])
    assert cache.get("k") is None
    assert not server.ask().exists("antiphon:speech:k")
    cache.close()


def test_a_redis_that_goes_away_is_left_alone_for_a_while(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    media_store = RedisStore(server.url, now_s=lambda: now_s)
    cache = SpeechCache(0, [media_store])
    cache.put("k", [second()], 16_000)
    server.process.send_signal(signal.SIGSTOP)
    assert cache.get("k") is None
    cache.put("other", [second()], 16_000)
    server.process.send_signal(signal.SIGCONT)
    assert cache.get("k") is None  # not asked
    assert caplog.text.count("is away") == 1
    now_s = 31.0
    assert cache.get("k") is not None
    cache.close()


def test_two_sets_of_models_share_their_speech(server: RedisServer, tmp_path: Path) -> None:
    chosen = settings(
        tmp_path, models__speech_cache_bytes=1 << 20, models__speech_cache_redis=server.url
    )

    async def scenario() -> None:
        hits = []
        for _ in range(2):
            models = model_loading.model_set(chosen, NoWeights())
            await models.load()
            async with aclosing(models.synthesize(SAID, work=Work("c", 0))) as chunks:
                assert [chunk async for chunk in chunks]
            assert models.speech_cache is not None
            hits.append(models.speech_cache.hits)
            await models.close()
        assert hits == [0, 1]

    asyncio.run(scenario())


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="redis://host:6379/0"):
        RedisStore("http://secret@somewhere")


def test_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[redis\]'"):
        RedisStore("redis://localhost")

"""Antiphon as a library: an engine in this process, from any thread."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cli.support import SCRIPTED, Command
from tests.support import NoWeights, say, settings

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.errors import AudioError, ModelError
from antiphon.local import Engine

QUESTION = encode_file(say(440, 640, silence_ms=300), 16_000, "wav")
STORY = encode_file(say(550, 640, silence_ms=300), 16_000, "mp3")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(settings(tmp_path), NoWeights())


def test_bytes_files_and_paths(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(QUESTION)
    with engine, path.open("rb") as file:
        for source in (QUESTION, bytearray(QUESTION), path, str(path), file, io.BytesIO(QUESTION)):
            assert engine.answer(source).reply == "It is noon."
        assert [link.state for link in engine.status()] == ["ready"] * 5


def test_several_threads_at_once(engine: Engine) -> None:
    with engine, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(engine.answer, [QUESTION, STORY] * 4))
    assert [a.transcript for a in answers] == ["what time is it", "tell me a story"] * 4


def test_bad_audio_is_an_error_and_nothing_breaks(engine: Engine) -> None:
    with engine:
        for bad in (b"", b"text", QUESTION[:20]):
            with pytest.raises(AudioError):
                engine.answer(bad)
        with pytest.raises(AudioError, match="nobody speaks"):
            engine.answer(encode_file(say(440, 20, silence_ms=900), 16_000, "wav"))
        assert engine.answer(QUESTION).reply == "It is noon."


def test_closed_is_closed(engine: Engine) -> None:
    before = {t for t in threading.enumerate() if t.name.startswith("antiphon")}
    engine.close()
    engine.close()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: engine.close(), range(2)))
    assert before
    assert not any(thread.is_alive() for thread in before)
    assert engine.status() == []
    with pytest.raises(ModelError, match="closed"):
        engine.answer(QUESTION)


def test_closing_gives_up_what_is_being_made(tmp_path: Path) -> None:
    started = threading.Event()
    slow = {"piece_delay_ms": 50, "rules": {"time": "and on " * 500}, "sleep": None}

    def sleep(seconds: float) -> None:
        started.set()
        threading.Event().wait(seconds)

    slow["sleep"] = sleep
    engine = Engine(
        settings(tmp_path, models__options__llm__scripted=slow, agent__max_tokens=1000), NoWeights()
    )
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(engine.answer, QUESTION)
        assert started.wait(10)
        engine.close()
        with pytest.raises(BaseException):  # noqa: B017, PT011 - cancelled, whichever way
            answering.result(timeout=10)


def test_models_that_cannot_be_loaded(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ModelError, match="no stt model can be loaded"):
        Engine(settings(tmp_path, models__stt="moonshine"), NoWeights())
    assert not [t for t in threading.enumerate() if t not in before and "antiphon" in t.name]


def test_process_audio_in_a_program_of_its_own(tmp_path: Path) -> None:
    """Shared by two threads, freed at the end of the program, without a word on stderr."""
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    (tmp_path / "question.wav").write_bytes(QUESTION)
    program = """
import pathlib, threading, antiphon
question = pathlib.Path("question.wav").read_bytes()
def ask(fmt):
    answer = antiphon.process_audio(question, response_format=fmt, bitrate=32)
    pathlib.Path("answer." + fmt).write_bytes(answer)
threads = [threading.Thread(target=ask, args=[fmt]) for fmt in ("wav", "mp3")]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
try:
    antiphon.process_audio(b"")
except antiphon.errors.AudioError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        cwd=tmp_path,
        env=Command(tmp_path).environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "empty" in done.stdout
    for name in ("answer.wav", "answer.mp3"):
        assert decode_file(tmp_path / name).duration_s > 0.5


def test_importing_is_instant() -> None:
    program = (
        "import sys, antiphon; print(*[m for m in ('numpy', 'av', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")

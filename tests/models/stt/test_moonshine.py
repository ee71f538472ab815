"""Moonshine hears what Piper says, and lives through anything else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from antiphon.errors import ModelError
from antiphon.models.ports import Pcm16, Transcript
from antiphon.models.store import WeightStore
from antiphon.models.stt.moonshine import Moonshine, Vocabulary, loop_start, split_at_quiet
from antiphon.testing.contracts import check_stt

Speak = Callable[[str, int], Pcm16]
SENTENCES = (
    "I would be happy to help you with that.",
    "The meeting starts at three in the afternoon.",
    "Please tell me your name and your telephone number.",
    "The train to the airport leaves every twenty minutes.",
    "My flight was delayed and I missed the connection.",
    "Could you turn off the lights in the kitchen?",
)


class Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, name: str) -> dict[str, Path]:
        return {path.name: path for path in self._folder.iterdir()}


def words(text: str) -> list[str]:
    digits = text.lower().replace("20", "twenty").replace("3", "three")
    return re.findall(r"[a-z']+", digits)


def word_errors(expected: list[str], heard: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


@pytest.fixture(scope="module")
def stt(weights: WeightStore) -> Moonshine:
    model = Moonshine(weights)
    model.load()
    return model


# --- with the weights ---------------------------------------------------------------------------


@pytest.mark.weights
def test_it_keeps_the_contract(stt: Moonshine, speak: Speak) -> None:
    check_stt(stt, speech=speak(SENTENCES[1], 16_000), words=["meeting", "afternoon"])


@pytest.mark.weights
def test_it_hears_nearly_every_word(stt: Moonshine, speak: Speak) -> None:
    errors = total = 0
    for sentence in SENTENCES:
        heard = stt.transcribe(speak(sentence, 16_000)).text
        errors += word_errors(words(sentence), words(heard))
        total += len(words(sentence))
    assert errors / total < 0.06


@pytest.mark.weights
def test_a_minute_is_heard_in_pieces_and_joined(stt: Moonshine, speak: Speak) -> None:
    pause = np.zeros(8_000, np.int16)
    spoken = [part for s in SENTENCES for part in (speak(s, 16_000), pause)]
    audio = np.concatenate(spoken * 4)
    assert audio.size > 60 * 16_000
    expected = words(" ".join(SENTENCES)) * 4
    heard = words(stt.transcribe(audio).text)
    assert word_errors(expected, heard) / len(expected) < 0.1


@pytest.mark.weights
@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0, np.int16),
        np.ones(1, np.int16),
        np.full(1, 32_767, np.int16),
        np.full(799, -32_768, np.int16),
        np.zeros(40 * 16_000, np.int16),
        np.random.default_rng(0).integers(-2, 3, 16_000).astype(np.int16),
        np.random.default_rng(0).normal(0, 1_500, 32_000).astype(np.int16),
        (8_000 * np.sin(np.arange(48_000) * 0.2)).astype(np.int16),
    ],
    ids=["empty", "one", "click", "flat", "silence", "hiss", "noise", "tone"],
)
def test_no_words_are_made_up_without_speech(stt: Moonshine, audio: Pcm16) -> None:
    assert stt.transcribe(audio) == Transcript("")


@pytest.mark.weights
def test_loud_noise_is_no_exception_and_no_endless_text(stt: Moonshine) -> None:
    noise = np.random.default_rng(1).integers(-32_768, 32_768, 64_000).astype(np.int16)
    assert len(stt.transcribe(noise).text) < 200


# --- without ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 1, 16])
def test_up_to_16_seconds_stay_whole(seconds: int) -> None:
    audio = np.ones(seconds * 16_000, np.int16)
    (piece,) = split_at_quiet(audio)
    assert piece is audio


def test_the_cut_is_where_it_is_quiet() -> None:
    audio = np.random.default_rng(0).normal(0, 3_000, 40 * 16_000).astype(np.int16)
    for start_s in (5.0, 12.5, 24.0, 30.0):
        start = int(start_s * 16_000)
        audio[start : start + 6_400] = 0
    pieces = split_at_quiet(audio)
    np.testing.assert_array_equal(np.concatenate(pieces), audio)
    cuts_s = np.cumsum([piece.size for piece in pieces])[:-1] / 16_000
    assert 12.5 < cuts_s[0] < 12.9
    assert 24.0 < cuts_s[1] < 24.4
    assert max(piece.size for piece in pieces) <= 16 * 16_000


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        ([], None),
        ([7] * 15, None),
        ([7] * 16, 1),
        ([1, 2, 3] + [7] * 16, 4),
        ([5, 6] * 8, 2),
        ([5, 6] * 7, None),
        ([1, 2, 3, 4, 5] * 4, 5),
        ([1, 2, 3, 4, 5] * 3, None),
        (list(range(60)), None),
    ],
)
def test_loops_are_found(tokens: list[int], start: int | None) -> None:
    assert loop_start(tokens) == start


def vocabulary_file(folder: Path, pieces: list[bytes]) -> Path:
    path = folder / "tokenizer.bin"
    data = b""
    for piece in pieces:
        size = len(piece)
        data += bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])
        data += piece
    path.write_bytes(data)
    return path


def test_tokens_become_text(tmp_path: Path) -> None:
    pieces = [b"<unk>", b"<s>", b"</s>", "▁Hello".encode(), b",", b"\xc3", b"\xa9", b"<<ST_1>>"]
    vocabulary = Vocabulary.read(vocabulary_file(tmp_path, [*pieces, b"x" * 300]))
    assert vocabulary.text([1, 3, 4, 3, 5, 6, 7, 2, 99]) == "Hello, Helloé"
    assert vocabulary.text([8]) == "x" * 300
    assert vocabulary.text([5]) == ""


@pytest.mark.parametrize("content", [b"", b"\x05ab", b"hello world", b"\xff"])
def test_a_file_that_is_no_vocabulary(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.bin").write_bytes(content)
    with pytest.raises(ModelError, match="not a Moonshine vocabulary"):
        Moonshine(Folder(tmp_path)).load()


def test_a_damaged_encoder(tmp_path: Path) -> None:
    vocabulary_file(tmp_path, [b"<unk>", b"<s>", b"</s>"])
    (tmp_path / "encoder_model.ort").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"cannot read encoder_model\.ort") as failure:
        Moonshine(Folder(tmp_path)).load()
    assert "\n" not in str(failure.value)


def test_it_must_be_loaded_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not loaded"):
        Moonshine(Folder(tmp_path)).transcribe(np.full(16_000, 1_000, np.int16))

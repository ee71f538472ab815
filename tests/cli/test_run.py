"""`antiphon run` as a process: what it prints, and one line for whatever is wrong."""

from __future__ import annotations

import io
import json
import resource
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.cli.support import SCRIPTED, Command
from tests.support import say

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file, wav_header


@pytest.fixture
def antiphon(tmp_path: Path) -> Command:
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    return Command(tmp_path)


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(encode_file(say(440, 640, silence_ms=300), 16_000, "wav"))
    return path


def test_json(antiphon: Command, question: Path) -> None:
    done = antiphon("run", question, "-o", "answer.mp3", "--bitrate", "32", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert list(result) == [
        "transcript",
        "reply",
        "output",
        "audio_s",
        "compression_ratio",
        "timings_ms",
    ]
    assert list(result["timings_ms"]) == [
        "stt",
        "llm_first_token",
        "llm_total",
        "tts_first_audio",
        "tts_total",
        "total",
    ]
    assert (result["transcript"], result["reply"]) == ("what time is it", "It is noon.")
    assert (result["output"], result["audio_s"]) == ("answer.mp3", 0.6)
    assert result["compression_ratio"] > 1
    assert all(isinstance(ms, int) and ms >= 0 for ms in result["timings_ms"].values())
    answer = decode_file(antiphon.folder / "answer.mp3")
    assert answer.source_format == "mp3"
    assert 0.5 <= answer.duration_s <= 0.8


def test_words(antiphon: Command, question: Path) -> None:
    done = antiphon("run", question)
    assert (done.returncode, done.stderr) == (0, "")
    heard, said, wrote = done.stdout.splitlines()
    assert (heard, said) == ("heard   what time is it", "said    It is noon.")
    assert wrote.startswith("wrote   answer.wav  (0.6 s, ")
    assert decode_file(antiphon.folder / "answer.wav").source_rate_hz == 24_000


def silence(seconds: float, rate_hz: int = 16_000) -> bytes:
    return encode_file(np.zeros(int(seconds * rate_hz), np.int16), rate_hz, "wav")


def three_hours_flac() -> bytes:
    """A second of FLAC whose header says that it is three hours."""
    data = bytearray(encode_file(np.zeros(16_000, np.int16), 16_000, "flac"))
    at = data.index(b"fLaC") + 4 + 4 + 10  # the block's header, sizes; then 20+3+5+36 bits
    bits = int.from_bytes(data[at : at + 8], "big")
    bits = bits >> 36 << 36 | 3 * 3_600 * 16_000
    data[at : at + 8] = bits.to_bytes(8, "big")
    return bytes(data)


def three_hours_wav(path: Path) -> None:
    size = 3 * 3_600 * 16_000 * 2
    with path.open("wb") as file:
        file.write(wav_header(16_000, size))
        file.truncate(44 + size)  # sparse: it takes no room


WHOLE = encode_file(say(440, 640), 16_000, "wav")
BAD_FILES: list[tuple[str, bytes | Callable[[Path], None], str]] = [
    ("empty", b"", "is empty; give a recording"),
    ("silent", silence(2), "nobody speaks in this recording"),
    ("one-sample", silence(1 / 16_000), "nobody speaks in this recording"),
    ("no-samples", silence(0), "no audio could be decoded"),
    ("cut-in-its-header", WHOLE[:30], ""),
    ("without-words", encode_file(say(3_000, 640), 16_000, "wav"), "no words were understood"),
    ("three-hours.flac", three_hours_flac(), "longer than 600 s, the limit"),
    ("three-hours-sparse", three_hours_wav, "longer than 600 s, the limit"),
    ("text", b"Dear sir, what time is it?\n" * 30, "not audio that can be read"),
    ("a-folder", Path.mkdir, "Is a directory"),
]


@pytest.mark.parametrize(
    ("content", "reason"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES]
)
def test_bad_files(content: bytes | Callable[[Path], None], reason: str, antiphon: Command) -> None:
    path = antiphon.folder / "bad.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    _refused(antiphon, reason, "run", path, "-o", "answer.wav")


def _refused(antiphon: Command, reason: str, *arguments: str | Path, code: int = 1) -> None:
    """One line on stderr, a code, nothing on stdout and no half-written answer."""
    before = set(antiphon.folder.iterdir())
    done = antiphon(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("antiphon: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(antiphon.folder.iterdir()) <= before | {antiphon.folder / "home"}


def test_a_truncated_file_is_answered_as_far_as_it_goes(antiphon: Command) -> None:
    (antiphon.folder / "cut.wav").write_bytes(WHOLE[: len(WHOLE) * 3 // 4])
    assert antiphon("run", "cut.wav").returncode == 0


def test_96_khz_and_7_channels(antiphon: Command) -> None:
    mono = say(440, 640, rate_hz=96_000)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(7)
        out.setsampwidth(2)
        out.setframerate(96_000)
        out.writeframes(np.repeat(mono[:, None], 7, axis=1).astype("<i2").tobytes())
    (antiphon.folder / "many.wav").write_bytes(file.getvalue())
    done = antiphon("run", "many.wav", "--json")
    assert json.loads(done.stdout)["transcript"] == "what time is it"


BAD_LINES: list[tuple[list[str], str, int]] = [
    (["run", "nothing.wav"], "cannot read nothing.wav: No such file", 1),
    (["run", "question.wav", "-o", "answer.xyz"], "cannot write .xyz audio", 1),
    (["run", "question.wav", "-o", "answer"], "has no extension", 1),
    (["run", "question.wav", "-o", "no/such/answer.wav"], "there is no folder no/such", 1),
    (["run", "question.wav", "-o", "folder.wav"], "cannot write folder.wav: it is a folder", 1),
    (["run", "question.wav", "--bitrate", "1000"], "Invalid value for '--bitrate'", 2),
    (["run"], "Missing argument 'question'; see --help", 2),
    (["rum"], "No such command 'rum'", 2),
    (["run", "question.wav", "--jsn"], "--jsn", 2),
    (["run", "question.wav", "--set", "server.prt=1"], "did you mean 'server.port'?", 1),
    (["run", "question.wav", "--set", "agent.prompt"], "--set takes name=value", 1),
    (["run", "question.wav", "--set", "models.stt=moonshin"], "did you mean 'moonshine'?", 1),
    (["run", "question.wav", "--set", "models.options.tts.scripted.word=1"], "no option 'word'", 1),
    (["serve", "--port", "http"], "Invalid value for '--port'", 2),
    (["serve", "--port", "70000"], "setting server.port: input should be less than", 1),
    (["serve", "--set", "models.llm=lama"], "unknown llm model 'lama'", 1),
    (
        ["serve", "--host", "no.such.host.invalid", "--port", "0"],
        "cannot listen on no.such.host",
        1,
    ),
]


@pytest.mark.parametrize(
    ("line", "reason", "code"), BAD_LINES, ids=[" ".join(r[0]) for r in BAD_LINES]
)
def test_bad_command_lines(
    line: list[str], reason: str, code: int, antiphon: Command, question: Path
) -> None:
    (antiphon.folder / "folder.wav").mkdir()
    _refused(antiphon, reason, *line, code=code)


def test_a_model_that_fails_is_one_line(antiphon: Command, question: Path) -> None:
    fails = "models.options.llm.scripted.fail_always=true"
    _refused(antiphon, "told to fail", "run", question, "--set", fails)


def test_weights_that_cannot_be_had(antiphon: Command, question: Path) -> None:
    _refused(antiphon, "tts", "run", question, "--set", "models.tts=piper")


def test_a_fallback_is_a_note(antiphon: Command, question: Path) -> None:
    done = antiphon("run", question, "--set", "models.tts=piper,scripted")
    assert done.returncode == 0
    assert done.stderr.startswith("antiphon: note: tts piper: ")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_leaves_nothing_behind(antiphon: Command, question: Path) -> None:
    done = antiphon(
        "run", question, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
    )
    assert (done.returncode, done.stderr) == (
        1,
        "antiphon: cannot write answer.wav: File too large\n",
    )
    assert not list(antiphon.folder.glob("*answer*"))


def test_settings_of_every_type(antiphon: Command, question: Path) -> None:
    sets = {
        "models.sequential": "false",
        "agent.max_tokens": "2",
        "agent.temperature": "0.1",
        "agent.language": "",
        "server.cors_origins": "https://a.example, https://b.example",
        "models.turn": "",
        "models.stt": "scripted",
        "models.options.tts.scripted.word_ms": "500",
        "models.options.llm.scripted": '{ rules = { time = "One two three four." } }',
        "trace_dir": "traces",
    }
    arguments = [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    done = antiphon("run", question, "--json", *arguments)
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert (result["reply"], result["audio_s"]) == ("One two", 1.0)


def test_settings_by_variable(antiphon: Command, question: Path) -> None:
    antiphon.variables = {
        "ANTIPHON_AGENT__MAX_TOKENS": "1",
        "ANTIPHON_MODELS__OPTIONS__TTS__SCRIPTED__WORD_MS": "400",
    }
    result = json.loads(antiphon("run", question, "--json").stdout)
    assert (result["reply"], result["audio_s"]) == ("It", 0.4)


def test_help_and_version(antiphon: Command) -> None:
    assert "serve" in antiphon("--help").stdout
    assert antiphon("version").stdout.strip().count(".") == 2
    empty = antiphon()
    assert empty.returncode == 2
    assert "Usage" in empty.stdout + empty.stderr

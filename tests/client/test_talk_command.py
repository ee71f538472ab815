"""`antiphon talk` as a person calls it: file to file, against a server of its own or one that runs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.support import serving
from tests.support import run, say, until

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.cli.talk import talk
from antiphon.client.local_server import server_for
from antiphon.errors import AntiphonError, AudioError, ConfigError, ModelError, ProtocolError
from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.piper import Piper
from antiphon.server.admission import Calls

SCRIPTED = """
[models]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"
[models.options.stt.scripted]
tones = {440 = "what time is it"}
[models.options.llm.scripted]
rules = {time = "It is noon."}
"""
QUESTION = say(440, 640)


def talk_with(**options: Any) -> None:
    given: dict[str, Any] = dict.fromkeys(
        ("url", "question", "output", "silence_ms", "codec", "sets")
    )
    talk(**{**given, "as_json": True, **options})


def recording(folder: Path, pcm: Pcm16 = QUESTION) -> Path:
    path = folder / "question.wav"
    path.write_bytes(encode_file(pcm, 16_000, "wav"))
    return path


def answers(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_file_to_file_with_a_server_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    output = tmp_path / "answer.mp3"
    talk_with(question=recording(tmp_path), output=output, silence_ms=1_000)
    found = answers(capsys)
    assert (found["calls"], found["answered"]) == (1, 1)
    assert found["turns"][0]["user_text"] == "what time is it"
    assert found["turns"][0]["reply_text"] == "It is noon."
    assert found["pipeline_ms"]["min"] >= 1_000, "the silence that was asked for ends the turn"
    assert found["transfer"]["codec"] == "pcm"
    assert np.abs(decode_file(output).pcm.astype(np.int32)).max() > 1_000


def test_a_server_that_runs_is_used_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            await asyncio.to_thread(
                talk_with, url=served.address, question=recording(tmp_path), codec="opus"
            )
            shown = served.calls.metrics.render("")[0].decode()
            assert "\nantiphon_calls_total 1.0\n" in shown

    run(scenario())
    found = answers(capsys)
    assert found["answered"] == 1
    assert found["transfer"]["ratio"] > 4


def test_a_server_with_keys_is_told_the_one_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-of-a-test-0123456789"
    locked = {"security__api_key": key}

    async def scenario() -> None:
        async with serving(tmp_path, **locked) as served:
            asked = {"url": served.address, "question": recording(tmp_path)}
            monkeypatch.delenv("ANTIPHON_API_KEY", raising=False)
            with pytest.raises(ProtocolError, match="set ANTIPHON_API_KEY"):
                await asyncio.to_thread(talk_with, **asked)
            monkeypatch.setenv("ANTIPHON_API_KEY", key)
            await asyncio.to_thread(talk_with, **asked)

    run(scenario())
    assert answers(capsys)["answered"] == 1


def test_silence_gets_no_answer_and_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "answer.wav"

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            with pytest.raises(ProtocolError, match="nothing was answered"):
                await asyncio.to_thread(
                    talk_with,
                    url=served.ws,
                    question=recording(tmp_path, np.zeros(1_600, np.int16)),
                    output=output,
                )

    run(scenario())
    assert answers(capsys)["answered"] == 0
    assert not np.any(decode_file(output).pcm)


def test_a_server_that_goes_away_leaves_table_and_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question, output = recording(tmp_path, say(440, 640, silence_ms=20_000)), tmp_path / "a.wav"

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            url = f"http://{served.address}"
            talking = asyncio.create_task(
                asyncio.to_thread(talk_with, url=url, question=question, output=output)
            )
            await until(lambda: _answered(served.calls), "the question is not answered")
            served.server.should_exit = True
            with pytest.raises(AntiphonError):
                await talking

    run(scenario())
    assert answers(capsys)["calls"] == 1
    assert np.any(decode_file(output).pcm)


def _answered(calls: Calls) -> bool:
    return any(record.status for s in calls._sessions.values() for record in s.records)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"question": Path("none.wav")}, AudioError, "cannot read none.wav"),
        ({"question": Path(__file__)}, AudioError, "not audio that can be read"),
        ({"output": Path("a.wav")}, ConfigError, "--output goes with --input"),
        ({"codec": "mp3"}, ConfigError, "use --codec opus"),
        ({"url": "ws://h", "silence_ms": 500}, ConfigError, "setting of the server"),
        ({"url": "ws://h", "sets": ["a.b=1"]}, ConfigError, "started here"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    options: dict[str, Any], error: type[AntiphonError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        talk_with(**options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["ftp://host", "ws://", "http://[::1", "ws://host:99999", "ws://h:x"]
)
def test_addresses_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="takes ws://host:port"):
        talk_with(url=url, question=recording(tmp_path))


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    question = recording(tmp_path)
    for output in (tmp_path, tmp_path / "no" / "a.wav", tmp_path / "a.doc"):
        with pytest.raises(AudioError):
            talk_with(question=question, output=output)


def test_without_the_extra_the_microphone_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[mic\]'"):
        talk_with()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"did not start: .*unknown setting"),
        server_for(None, ["no.such=1"]),
    ):
        pass


@pytest.mark.weights
def test_a_spoken_question_gets_a_spoken_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    voice = Piper(WeightStore(), noise_scale=0.0, noise_w=0.0)
    voice.load()
    spoken = np.concatenate(list(voice.synthesize(SpeechRequest("What is the capital of France?"))))
    question = tmp_path / "question.wav"
    question.write_bytes(encode_file(spoken, voice.sample_rate_hz, "wav"))
    voice.close()
    output = tmp_path / "answer.wav"
    talk_with(question=question, output=output, codec="opus")
    found = answers(capsys)
    assert found["answered"] == 1
    assert "capital of france" in found["turns"][0]["user_text"].lower()
    assert np.abs(decode_file(output).pcm.astype(np.int32)).max() > 1_000

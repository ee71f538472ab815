"""`antiphon doctor`: what each check finds, on real sockets, servers and files, and how the command ends."""

from __future__ import annotations

import json
import os
import socket
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from antiphon.audio.framing import Pcm16
from antiphon.audio.g711 import encode_alaw, encode_ulaw
from antiphon.cli import doctor_checks as checks
from antiphon.cli.doctor import doctor
from antiphon.cli.doctor_checks import Finding
from antiphon.cli.doctor_recording import check_recording
from antiphon.config import Settings, load

app = typer.Typer()
app.command("doctor")(doctor)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings and no weights but those of the test."""
    for name in list(os.environ):
        if name.startswith(("ANTIPHON_", "HF_", "OPENAI_", "MODELS_CACHE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANTIPHON_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def settings(**overrides: Any) -> Settings:
    return load({name.replace("__", "."): value for name, value in overrides.items()})


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_every_line_says_state_and_check_and_what_to_do() -> None:
    result = run("--set", "server.port=0", "--set", "models.vad=scripted")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.stdout
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)
    assert any(line.startswith("ok    python: 3.") for line in lines)
    missing = next(line for line in lines if "stt moonshine" in line)
    assert missing.startswith("warn")
    assert missing.endswith("-> run: antiphon models pull moonshine-tiny-en")


def test_json_and_the_exit_code() -> None:
    result = run("--json", "--set", "server.port=0")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (0, True)
    assert {"check", "state", "found", "todo"} == set(found["checks"][0])
    result = run("--json", "--set", "server.prt=1")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (1, False)
    wrong = next(check for check in found["checks"] if check["state"] == "fail")
    assert wrong["check"] == "settings"
    assert "server.port" in wrong["found"]
    assert wrong["todo"]


def test_without_a_network_missing_weights_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")
    found = by_check(checks.check_models(settings()))
    assert found["vad silero"].state == "fail"
    assert "ANTIPHON_OFFLINE=1" in found["vad silero"].found


def test_models_that_are_not() -> None:
    found = by_check(checks.check_models(settings(models__stt="moonshin", models__tts="scripted")))
    assert found["stt moonshin"].state == "fail"
    assert "did you mean 'moonshine'" in found["stt moonshin"].found
    assert found["tts scripted"].state == "ok"
    found = by_check(checks.check_models(settings(models__stt="scripted, moonshin")))
    assert found["stt moonshin"].state == "warn"  # only a fallback


def test_a_package_that_a_model_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checks._NEEDS, "scripted", ("no_such_module", "webrtc"))
    found = by_check(checks.check_models(settings(models__vad="scripted")))
    assert found["vad scripted"].state == "fail"
    assert "pip install 'antiphon[webrtc]'" in found["vad scripted"].found


def test_packages_and_extras(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    (place / "broken_sound.py").write_text("raise OSError('PortAudio library\\nnot found')")
    monkeypatch.syspath_prepend(str(place))
    wanted = [
        "numpy>=2",
        "typer>=0.1; sys_platform != 'plan9'",
        "absent-one; sys_platform == 'plan9'",
        "numpy; extra == 'here'",
        "absent-two>=1; extra == 'gone'",
        "broken.sound; extra == 'odd'",
        "absent-three; extra == 'dev'",
    ]
    monkeypatch.setattr(checks.metadata, "requires", lambda name: wanted)
    modules = {"numpy": ["numpy"], "typer": ["typer"], "broken_sound": ["Broken_Sound"]}
    monkeypatch.setattr(checks.metadata, "packages_distributions", lambda: modules)
    found = by_check(checks.check_packages())
    assert set(found) == {"packages", "extra here", "extra gone", "extra odd"}
    assert found["packages"].state == found["extra here"].state == "ok"
    assert found["extra gone"].state == "ok"
    assert "pip install 'antiphon[gone]'" in found["extra gone"].found
    assert found["extra odd"].state == "warn"
    assert "PortAudio library not found" in found["extra odd"].found
    wanted.append("absent-four")
    missing = by_check(checks.check_packages())["packages"]
    assert (missing.state, missing.found) == ("fail", "absent-four not installed")


def test_a_port_that_is_taken_and_one_that_is_free() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        (taken,) = checks.check_port(settings(server__port=port))
        assert taken.state == "fail"
        assert f"127.0.0.1:{port}" in taken.found
        assert "server.port" in taken.todo
    (free,) = checks.check_port(settings(server__port=port))
    assert free.state == "ok"
    (nowhere,) = checks.check_port(settings(server__host="256.1.1.1"))
    assert nowhere.state == "fail"


class Endpoint(BaseHTTPRequestHandler):
    """An OpenAI-compatible list of models, for whoever has the key."""

    def do_GET(self) -> None:
        status, body = 404, b"{}"
        if self.path == "/v1/models":
            allowed = self.headers["authorization"] == "Bearer right"
            status = 200 if allowed else 401
            body = b'{"data": [{"id": "small"}]}'
        elif self.path == "/broken/models":
            status = 500
        elif self.path == "/odd/models":
            status, body = 200, b"<html>"
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "key", "model", "state", "found"),
    [
        ("/v1", "right", "small", "ok", "answers"),
        ("/v1/", "right", "", "ok", "answers"),
        ("/v1", "right", "large", "fail", "has no model 'large'; it has small"),
        ("/v1", "wrong", "small", "fail", "refuses the key"),
        ("", "right", "small", "warn", "answers, but has no list of models"),
        ("/broken", "", "", "fail", "answers 500"),
        ("/odd", "", "small", "ok", "answers"),
    ],
)
def test_endpoints(address: str, path: str, key: str, model: str, state: str, found: str) -> None:
    finding = checks.ask_endpoint(address + path, key, model)
    assert (finding.state, finding.found) == (state, found)


def test_the_configured_endpoint_is_asked(address: str) -> None:
    told = settings(endpoint__base_url=f"{address}/v1", endpoint__api_key="right")
    (finding,) = checks.check_endpoints(told)
    assert finding.state == "ok"
    assert "right" not in str(finding)
    assert list(checks.check_endpoints(settings())) == []


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1/v1", "not an address", "http://[::1"])
def test_an_endpoint_that_does_not_answer(base_url: str) -> None:
    finding = checks.ask_endpoint(base_url, "", "")
    assert finding.state == "fail"
    assert "does not answer" in finding.found
    assert "\n" not in finding.found


def test_the_machine() -> None:
    found = by_check(checks.check_machine())
    assert {"processor", "gpu"} <= set(found)
    assert all(finding.state in ("ok", "warn") for finding in found.values())


# --- recordings -------------------------------------------------------------------------------------


def speech(peak: float, rate_hz: int = 16_000) -> Pcm16:
    """Half a second of quiet room, a second of a voice, and quiet again."""
    t = np.arange(2 * rate_hz) / rate_hz
    voice = sum(np.sin(2 * np.pi * 130 * n * t) / n for n in range(1, 12))
    voice = voice / np.abs(voice).max() * peak * ((t > 0.5) & (t < 1.5))
    room = np.random.default_rng(2).normal(0, 6, len(t))
    pcm: Pcm16 = np.clip(voice + room, -32768, 32767).astype(np.int16)
    return pcm


def wav(path: Path, pcm: Pcm16, rate_hz: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def g711_wav(path: Path, codec: int, data: bytes) -> Path:
    form = codec.to_bytes(2, "little") + (1).to_bytes(2, "little")
    form += (
        (8_000).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (8).to_bytes(2, "little")
    )
    chunks = b"fmt " + (16).to_bytes(4, "little") + form
    chunks += b"data" + len(data).to_bytes(4, "little") + data
    path.write_bytes(b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks)
    return path


def test_a_good_recording(place: Path) -> None:
    found = by_check(check_recording(wav(place / "good.wav", speech(12_000))))
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["recording"].found == "wav, 16000 Hz, 1 channel, 2.0 s"
    assert found["speech"].found == "sound from 0.5 to 1.5 s"
    result = run("--set", "server.port=0", str(place / "good.wav"))
    assert result.exit_code == 0
    assert "ok    level: normal" in result.stdout


@pytest.mark.parametrize(
    ("peak", "check", "state", "found"),
    [
        (0, "level", "fail", "silence"),
        (900, "level", "warn", "quiet"),
        (200_000, "clipping", "fail", "%"),
        (40_000, "level", "warn", "loud"),
        (200_000, "level", "fail", "noise"),
    ],
)
def test_levels(place: Path, peak: float, check: str, state: str, found: str) -> None:
    finding = by_check(check_recording(wav(place / "x.wav", speech(peak))))[check]
    assert finding.state == state
    assert found in finding.found
    assert finding.todo


def test_noise_alone(place: Path) -> None:
    hiss = np.random.default_rng(3).normal(0, 1_500, 32_000).astype(np.int16)
    assert by_check(check_recording(wav(place / "x.wav", hiss)))["speech"].state == "warn"


def test_wrong_encodings(place: Path) -> None:
    voice = speech(12_000, 8_000)
    swapped = wav(place / "swapped.wav", voice.byteswap(), 8_000)
    assert "pcm_s16be" in by_check(check_recording(swapped))["encoding"].found
    ulaw_as_pcm = np.frombuffer(encode_ulaw(voice), np.int16)
    found = by_check(check_recording(wav(place / "ulaw.wav", ulaw_as_pcm, 8_000)))["encoding"]
    assert (found.state, "mulaw" in found.found) == ("fail", True)
    for codec, data, state in (
        (7, encode_ulaw(voice), "ok"),
        (6, encode_alaw(voice), "ok"),
        (7, encode_alaw(voice), "fail"),
    ):
        found = by_check(check_recording(g711_wav(place / "g711.wav", codec, data)))["encoding"]
        assert found.state == state


@pytest.mark.parametrize("content", [b"", b"no audio at all, sorry", None])
def test_what_is_no_recording_is_one_line(place: Path, content: bytes | None) -> None:
    path = place / "odd.wav"
    if content is not None:
        path.write_bytes(content)
    (finding,) = check_recording(path)
    assert finding.state == "fail"
    assert "\n" not in finding.found
    result = run("--set", "server.port=0", str(path))
    assert result.exit_code == 1
    assert "fail  recording: " in result.stdout

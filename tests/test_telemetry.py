"""Nothing is reported to anybody: the switches, and a spoken turn watched from outside of the processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from antiphon import telemetry
from antiphon.audio.encoding import encode_file
from antiphon.models.ports import Kind, SpeechRequest
from antiphon.models.registry import shared_registry
from antiphon.models.store import WeightStore

LIMIT_S = 240
_ADDRESS = re.compile(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
_PORT = re.compile(r"htons\((\d+)\)")


def strangers(trace: str) -> list[str]:
    """Lines of strace in which somebody outside of this machine is sent to, or asked for the address of another."""
    found = []
    for line in trace.splitlines():
        outside = [a for a in _ADDRESS.findall(line) if not (a.startswith("127.") or a == "::1")]
        if outside or "53" in _PORT.findall(line):
            found.append(line)
    return found


def test_what_the_owner_has_set_is_kept() -> None:
    variables = {"DO_NOT_TRACK": "0", "ORT_DISABLE_TELEMETRY": "", "OTHER": "x"}
    telemetry.turn_off(variables)
    assert variables == {**telemetry.OFF, "DO_NOT_TRACK": "0", "OTHER": "x"}


@pytest.mark.parametrize(
    "line",
    [
        "import antiphon",
        "import antiphon.audio.containers",
        "from antiphon import process_audio",
        "import antiphon.cli",
        "import antiphon.models.stt.faster_whisper",
    ],
)
def test_whatever_is_imported_first(line: str) -> None:
    """The variables stand before any other module of ours, or of others, is imported."""
    code = (
        "import os, sys\n"
        f"names = {sorted(telemetry.OFF)!r}\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('onnxruntime', 'numpy', 'av', 'huggingface_hub', 'faster_whisper'):\n"
        "            assert all(os.environ.get(n) for n in names), name\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"{line}\n"
        "import onnxruntime\n"
    )
    bare = {k: v for k, v in os.environ.items() if k not in telemetry.OFF}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, env=bare
    )
    assert done.returncode == 0, done.stderr


def test_strangers_are_recognised() -> None:
    """The check itself: what it lets pass, and what not."""
    inside = (
        '1 connect(3, {sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0\n'
        '1 connect(3, {sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "::1", &sin6_addr)}, 28) = 0\n'
        '1 connect(3, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT\n'
    )
    assert strangers(inside) == []
    for outside in (
        '1 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("20.42.1.1")}, 16) = 0',
        '1 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
        '1 sendto(3, "", 9, 0, {sa_family=AF_INET6, sin6_port=htons(9), inet_pton(AF_INET6, "2001:db8::1")}) = 9',
    ):
        assert strangers(inside + outside) == [outside]


@pytest.mark.weights
@pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux's")
def test_a_spoken_turn_reaches_nobody_outside(tmp_path: Path) -> None:
    """A server with the models that come with onnxruntime starts, hears, answers and stops."""
    assert shutil.which("strace"), "strace is not here: make strace"
    store = WeightStore()
    voice = shared_registry().create(Kind.TTS, "piper", store, {}).backend
    voice.load()
    pcm = np.concatenate(list(voice.synthesize(SpeechRequest("What time is it?"))))
    voice.close()
    (tmp_path / "question.wav").write_bytes(encode_file(pcm, voice.sample_rate_hz, "wav"))
    (tmp_path / "home").mkdir()
    trace, skipped = tmp_path / "trace", ("ANTIPHON_", "XDG_", *telemetry.OFF)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(skipped)}
    variables |= {"HOME": str(tmp_path / "home"), "ANTIPHON_HOME": str(store.home)}
    watched = "trace=connect,sendto,sendmsg,sendmmsg"
    command = ["strace", "-f", "--seccomp-bpf", "-o", str(trace), "-e", watched]
    command += [sys.executable, "-m", "antiphon", "talk"]
    command += ["--input", "question.wav", "--output", "answer.wav", "--set", "models.llm=scripted"]
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "answer.wav").stat().st_size > 10_000
    written = trace.read_text(errors="replace")
    assert "connect(" in written  # the turn itself went over loopback
    assert strangers(written) == []
    assert not list((tmp_path / "home").rglob("*icrosoft*"))

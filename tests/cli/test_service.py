"""`antiphon service` as a process: it starts, answers, and stops as it is told."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import pytest
from tests.cli.support import LIMIT_S, SCRIPTED, Command


@pytest.mark.parametrize(("kind", "lines"), [("tts", 1), ("stt", 2), ("llm", 1)])
def test_starts_answers_and_stops(kind: str, lines: int, tmp_path: Path) -> None:
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    process = Command(tmp_path).start("service", kind, "--port", "0")
    try:
        assert process.stderr is not None
        said = [next(process.stderr) for _ in range(lines + 1)]
        found = re.search(r"Ready: http://localhost:(\d+)", said[-1])
        assert found, said
        ready = httpx.get(f"http://127.0.0.1:{found[1]}/ready").json()
        assert [model["kind"] for model in ready["models"]][-1] == kind
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=LIMIT_S)


def test_what_cannot_be(tmp_path: Path) -> None:
    ran = Command(tmp_path)("service", "vad")
    assert ran.returncode == 2
    assert "'stt', 'tts', 'llm'" in ran.stderr
    ran = Command(tmp_path)("service", "tts", "--set", "models.tts=nothing")
    assert ran.returncode == 1
    assert "unknown tts" in ran.stderr

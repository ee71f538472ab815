"""What every call may need to be told is said once before the first call, unheard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tests.server.support import serving
from tests.support import OPTIONS, nothing_left, run, until

from antiphon.models.ports import Kind

SAID: dict[str, Any] = {
    "models__speech_cache_bytes": 1 << 20,
    "conversation__greeting": "Good morning.",
    "conversation__apology": "Sorry, once more please.",
    "conversation__tool_filler": "One moment.",
    "conversation__idle_prompt": "Hello?",
    "conversation__goodbye": "Bye.",
}


def test_the_agents_own_phrases_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **SAID) as served:
            tts = served.models.backend(Kind.TTS)
            await until(lambda: len(tts.requests) >= 5)
            said = {request.text for request in tts.requests}
            assert {"Good morning.", "One moment.", "Hello?", "Bye."} <= said

    run(main())


def test_a_voice_that_fails_is_asked_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A few failures give a model up; the rehearsal must not spend them."""
    caplog.set_level(logging.WARNING)
    failing = {"models__options__tts__scripted": {**OPTIONS["tts"], "fail_on": [1]}}

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **SAID, **failing) as served:
            await until(lambda: "nothing more is rehearsed" in caplog.text)
            assert len(served.models.backend(Kind.TTS).requests) == 1

    run(main())

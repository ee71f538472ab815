"""The same call to a stock Pipecat bot and to Antiphon, and what each side says of its latency.

    .venv/bin/python side_by_side.py question.wav [more.wav ...]

Starts Antiphon's three services, the Pipecat bot on them, and Antiphon's own server on the same services; calls first
one, then the other with `antiphon call`; prints what the caller heard and each server's own report; ends all of it.
One call at a time, so that the two never share the machine's cores.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
ANTIPHON = [sys.executable, "-m", "antiphon"]
_READY = re.compile(r"Ready: http://[^ ]*?:(\d+)")
_START_S, _END_S, _CALL_S = 180, 30, 600


class Child:
    """A server, from its start to its end. Raises RuntimeError when it does not come up."""

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.port = 0
        self._up = threading.Event()
        self._process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=HERE,
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._up.wait(_START_S) or not self.port:
            self.end()
            raise RuntimeError(f"{' '.join(command)} did not start:\n" + "\n".join(self.lines))

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
            if (found := _READY.search(line)) is not None:
                self.port = int(found[1])
                self._up.set()
        self._up.set()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


def call(port: int, questions: list[str]) -> str:
    """What the caller heard, as `antiphon call` tells it."""
    command = [*ANTIPHON, "call", "--url", f"ws://127.0.0.1:{port}/media-stream", "--greeting", "1"]
    done = subprocess.run(
        [*command, *questions], capture_output=True, text=True, timeout=_CALL_S, check=False
    )
    return (done.stdout + done.stderr).strip()


def main(questions: list[str]) -> None:
    questions = [str(Path(name).resolve(strict=True)) for name in questions]
    with ExitStack() as stack:

        def started(*command: str, **environment: str) -> Child:
            child = Child(list(command), environment)
            stack.callback(child.end)
            return child

        stt, llm, tts = (
            started(*ANTIPHON, "service", kind, "--port", "0") for kind in ("stt", "llm", "tts")
        )
        with urllib.request.urlopen(
            f"http://127.0.0.1:{tts.port}/studio_speakers", timeout=10
        ) as told:
            voice = next(iter(json.load(told)))
        with ExitStack() as turn:
            bot = Child(
                [
                    sys.executable,
                    "bot.py",
                    *("--port", "0", "--voice", voice),
                    *("--stt", f"http://127.0.0.1:{stt.port}/v1"),
                    *("--llm", f"http://127.0.0.1:{llm.port}/v1"),
                    *("--tts", f"http://127.0.0.1:{tts.port}"),
                ]
            )
            turn.callback(bot.end)
            heard = call(bot.port, questions)
        print("== Pipecat: what the caller heard", heard, "", sep="\n")
        print("== Pipecat: what it says itself", *bot.lines[1:], "", sep="\n")
        ours = Child(
            [
                *(*ANTIPHON, "serve", "--port", "0"),
                *("--set", "conversation.greeting="),
                *("--set", "phone.tools="),  # the bot has no functions either
            ],
            {
                "COLUMNS": "120",
                "KYUTAI_STT_URL": f"ws://127.0.0.1:{stt.port}",
                "VLLM_BASE_URL": f"http://127.0.0.1:{llm.port}/v1",
                "XTTS_BASE_URL": f"http://127.0.0.1:{tts.port}",
            },
        )
        stack.callback(ours.end)
        heard = call(ours.port, questions)
        ours.end()
        print("== Antiphon: what the caller heard", heard, "", sep="\n")
        start = next(n for n, line in enumerate(ours.lines) if _READY.search(line))
        print("== Antiphon: what it says itself", *ours.lines[start + 1 :], "", sep="\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])

"""The server that is fuzzed: a process of its own, with scripted models and a limit on its memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MEMORY_BYTES = 4 << 30
_START_S = 120.0
_END_S = 20.0
_MOST_LINES = 50_000
_MOST_TOLD = 20
SCRIPTED = tuple(f"models.{kind}=scripted" for kind in ("vad", "turn", "stt", "llm", "tts"))
OPEN = ("server.max_calls=1000", "server.max_loop_lag_ms=0", "server.max_model_wait_ms=0")
OPEN += ("security.open=true", "conversation.greeting=", "phone.greeting=")


@dataclass(slots=True)
class Target:
    """A server that runs."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def answers(self) -> bool:
        """To somebody else."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=20) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def tracebacks(self) -> list[str]:
        """Of its log, each with the line before it; the first 20."""
        starts = [n for n, text in enumerate(self.lines) if "Traceback (most recent" in text]
        return ["\n".join(self.lines[max(n - 1, 0) : n + 60])[-1_500:] for n in starts[:_MOST_TOLD]]

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("Ready: http://"):
                self.port = int(line.split("\n")[0].rstrip("/ ").rpartition(":")[2].split()[0])
            if len(self.lines) < _MOST_LINES:
                self.lines.append(line.rstrip())


@contextmanager
def target(*command: str) -> Iterator[Target]:
    """`command`: as `serve` or `service stt`. Raises RuntimeError when it does not start."""
    given = [sys.executable, "-m", "antiphon", *command, "--host", "127.0.0.1", "--port", "0"]
    for item in (*SCRIPTED, *OPEN):
        given += ["--set", item]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    process = subprocess.Popen(
        given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "NO_COLOR": "1"},
        preexec_fn=limit,
    )
    found = Target(process)
    threading.Thread(target=found.read, name="log of the target", daemon=True).start()
    try:
        end_s = time.monotonic() + _START_S
        while not found.port:
            if not found.alive or time.monotonic() > end_s:
                raise RuntimeError("the server does not start:\n" + "\n".join(found.lines[-20:]))
            time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
